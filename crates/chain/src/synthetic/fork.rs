//! Where the chain forks, how deep, and when the losing branch arrives.
//!
//! Not what the losing blocks hold (see `drawn`). Invariant: forks never overlap, and the winner goes on at least one block
//! above the loser, so that which chain is canonical does not hang on who came first.

use super::draw::Draw;
use super::drawn::{Chain, Purpose};
use super::shape;

/// One losing branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fork {
    /// Height of its first block.
    pub(super) from: u64,
    /// Number of its blocks.
    pub(super) depth: u64,
    /// True if it arrives after the winner's blocks of the same heights and changes nothing; false if it is adopted first and then
    /// abandoned.
    pub(super) late: bool,
}

impl Fork {
    /// Height of the first winning block above the fork.
    pub(super) fn end(&self) -> u64 {
        self.from + self.depth
    }
}

/// The forks of a chain of `blocks` blocks, lowest first: one in each window of 5,000 blocks; the first window has one of
/// each sort below height 200, so that short chains see both.
pub(super) fn forks(chain: &Chain, blocks: u64) -> impl Iterator<Item = Fork> {
    let windows = blocks.div_ceil(shape::FORK_WINDOW);
    let key = chain.clone();
    (0..windows).flat_map(move |window| in_window(&key, window)).filter(move |fork| fork.end() < blocks)
}

fn in_window(chain: &Chain, window: u64) -> Vec<Fork> {
    // Fork windows have streams of their own: the heights of their first blocks, for a purpose no block has.
    let mut draw = chain.stream(window * shape::FORK_WINDOW, Purpose::Fork);
    if window == 0 {
        return vec![fork(&mut draw, (20, 80), false), fork(&mut draw, (110, 160), true)];
    }
    let first = window * shape::FORK_WINDOW;
    let late = draw.chance(500_000);
    vec![fork(&mut draw, (first, first + shape::FORK_WINDOW - 40), late)]
}

fn fork(draw: &mut Draw, (low, high): (u64, u64), late: bool) -> Fork {
    let from = draw.between(low, high);
    let (least, most) = *draw.weighted(shape::FORK_DEPTHS);
    Fork { from, depth: draw.between(least, most), late }
}

#[cfg(test)]
mod tests {
    use super::forks;
    use crate::synthetic::drawn::Chain;
    use crate::synthetic::{Profile, Spec};

    fn chain(seed: u64) -> Chain {
        Chain::new(&Spec { blocks: 1, seed, profile: Profile::Nakamoto, network: "mainnet".to_owned() })
    }

    #[test]
    fn two_hundred_blocks_have_a_fork_of_each_sort() {
        for seed in 0..50 {
            let found: Vec<bool> = forks(&chain(seed), 200).map(|fork| fork.late).collect();
            assert_eq!(found, [false, true], "seed {seed}");
        }
    }

    #[test]
    fn forks_do_not_overlap_and_are_mostly_one_block_deep() {
        let found: Vec<_> = forks(&chain(1), 5_000_000).collect();
        assert_eq!(found.len(), 1_001);
        assert!(found.windows(2).all(|pair| pair[0].end() + 1 < pair[1].from));
        let share = |matches: fn(u64) -> bool| found.iter().filter(|fork| matches(fork.depth)).count();
        assert!((870..930).contains(&share(|depth| depth == 1)));
        assert!(share(|depth| depth > 5) >= 3 && found.iter().all(|fork| fork.depth <= 20));
    }
}
