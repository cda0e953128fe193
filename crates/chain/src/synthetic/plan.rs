//! The order in which a node posts a chain: forks, late losers, redeliveries, swaps, and genesis again after a restart.
//!
//! Not the bodies (see `payload`). Invariant: whatever the disturbances, the canonical chain ends as the winner's blocks.

use std::collections::VecDeque;
use std::iter::Peekable;

use super::drawn::{Chain, Purpose};
use super::fork::{Fork, forks};
use super::header::Branch;
use super::shape;

/// After this many blocks the node restarts and posts genesis again, without its content.
const RESTART: u64 = 17;

/// One POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    /// `/new_burn_block` for the Bitcoin block of the block at this height.
    Burn(u64),
    /// `/new_block`.
    Block {
        height: u64,
        branch: Branch,
        /// False if the same body came before.
        first: bool,
    },
    /// `/new_block` of genesis without transactions and events.
    EmptyGenesis,
}

/// All posts of a chain of `blocks` blocks, in order.
pub(super) fn posts(chain: &Chain, blocks: u64) -> impl Iterator<Item = Post> {
    let forks = forks(chain, blocks).peekable();
    Plan { chain: chain.clone(), blocks, forks, last: None, next: 0, queue: VecDeque::new() }
}

struct Plan<F: Iterator<Item = Fork>> {
    chain: Chain,
    blocks: u64,
    forks: Peekable<F>,
    /// The fork that began last.
    last: Option<Fork>,
    next: u64,
    queue: VecDeque<Post>,
}

impl<F: Iterator<Item = Fork>> Iterator for Plan<F> {
    type Item = Post;

    fn next(&mut self) -> Option<Post> {
        while self.queue.is_empty() && self.next < self.blocks {
            self.step();
        }
        self.queue.pop_front()
    }
}

impl<F: Iterator<Item = Fork>> Plan<F> {
    /// Queues what the winner's next block, and what hangs on it, brings.
    fn step(&mut self) {
        let height = self.next;
        let mut coins = self.chain.stream(height, Purpose::Delivery);
        let (redelivered, swapped) = (coins.chance(shape::REDELIVERED), coins.chance(shape::SWAPPED));
        if let Some(fork) = self.forks.next_if(|fork| fork.from == height) {
            self.last = Some(fork);
            if !fork.late {
                self.branch(fork);
            }
        }
        if swapped && height > 0 && height + 1 < self.blocks && self.is_calm(height) {
            self.burn(height);
            self.block(height + 1, Branch::Winner);
            self.queue.push_back(Post::Block { height, branch: Branch::Winner, first: true });
            self.next += 2;
        } else {
            self.block(height, Branch::Winner);
            self.next += 1;
        }
        if redelivered {
            self.queue.push_back(Post::Block { height, branch: Branch::Winner, first: false });
        }
        if (height..self.next).contains(&RESTART.min(self.blocks - 1)) {
            self.queue.push_back(Post::EmptyGenesis);
        }
        // Half of the late losers tie with the winner, the others are one block behind already.
        if let Some(fork) = self.last.filter(|fork| fork.late && height == fork.end() - fork.from % 2) {
            self.branch(fork);
        }
    }

    fn branch(&mut self, fork: Fork) {
        for height in fork.from..fork.end() {
            self.block(height, Branch::Loser { from: fork.from });
        }
    }

    fn block(&mut self, height: u64, branch: Branch) {
        self.burn(height);
        self.queue.push_back(Post::Block { height, branch, first: true });
    }

    /// A Bitcoin block comes before the blocks anchored to it; competing branches repeat it.
    fn burn(&mut self, height: u64) {
        if height == 0 || self.chain.header(height, Branch::Winner).starts_tenure() {
            self.queue.push_back(Post::Burn(height));
        }
    }

    /// No fork is under way, nor about to begin, at a height and the one above.
    fn is_calm(&mut self, height: u64) -> bool {
        self.last.is_none_or(|fork| fork.end() + 1 < height) && self.forks.peek().is_none_or(|fork| fork.from > height + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Branch, Chain, Post, posts};
    use crate::synthetic::{Profile, Spec};

    fn plan(blocks: u64) -> Vec<Post> {
        let spec = Spec { blocks, seed: 3, profile: Profile::Nakamoto, network: "mainnet".to_owned() };
        posts(&Chain::new(&spec), blocks).collect()
    }

    #[test]
    fn every_winner_comes_exactly_once_for_the_first_time() {
        let first: Vec<u64> = plan(12_000)
            .iter()
            .filter_map(|post| match post {
                Post::Block { height, branch: Branch::Winner, first: true } => Some(*height),
                _ => None,
            })
            .collect();
        assert_eq!(first.len(), 12_000);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), 12_000);
        assert!(first.windows(2).any(|pair| pair[0] > pair[1]), "some arrive the wrong way round");
    }

    #[test]
    fn disturbances_come_about_as_often_as_asked_for() {
        let plan = plan(12_000);
        let again = plan.iter().filter(|post| matches!(post, Post::Block { first: false, .. })).count();
        assert!((90..=150).contains(&again), "{again}");
        assert_eq!(plan.iter().filter(|post| **post == Post::EmptyGenesis).count(), 1);
        let losers = plan.iter().filter(|post| matches!(post, Post::Block { branch: Branch::Loser { .. }, .. })).count();
        assert!(losers >= 3, "{losers}");
    }

    #[test]
    fn one_block_is_posted_and_genesis_once_more() {
        let genesis = Post::Block { height: 0, branch: Branch::Winner, first: true };
        let posts: Vec<Post> = plan(1).into_iter().filter(|post| !matches!(post, Post::Block { first: false, .. })).collect();
        assert_eq!(posts, [Post::Burn(0), genesis, Post::EmptyGenesis]);
    }
}
