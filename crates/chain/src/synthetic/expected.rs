//! What a correct indexer ends with after a synthetic recording: counts and digests.
//!
//! Not read back from the recording: computed from the seed. Invariant: memory does not grow with the chain, though the
//! digests are over sorted lines: blocks are made a second time in the order in which their lines sort.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::drawn::{Chain, Drawn};
use super::fork::Fork;
use super::header::Branch;

/// Counts and digests in the form of the shared recordings' `counts.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// What was posted, and what of it is canonical.
    pub counts: Counts,
    /// Of the canonical chain, by the rules of [`crate::digest`].
    pub canonical_digest_sha256: Digests,
}

/// Numbers of posts, blocks, transactions and events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Posts.
    pub lines: u64,
    /// Posts by path.
    pub paths: BTreeMap<String, u64>,
    /// `/new_block` posts.
    pub blocks_received: u64,
    /// Different blocks among them.
    pub blocks_unique: u64,
    /// Those that came before.
    pub redelivered_blocks: u64,
    /// Always 0.
    pub height_min: u64,
    /// Height of the last block.
    pub height_max: u64,
    /// Heights with more than one block.
    pub heights_with_forks: Vec<u64>,
    /// Blocks of the canonical chain.
    pub canonical_blocks: u64,
    /// Blocks of losing branches.
    pub orphaned_blocks: u64,
    /// Lowest and highest canonical height.
    pub canonical_low_high: [u64; 2],
    /// Times the canonical chain changed its mind.
    pub reorgs: Vec<Reorg>,
    /// `/new_burn_block` posts.
    pub burn_blocks: u64,
    /// Different Bitcoin blocks among them.
    pub burn_blocks_unique: u64,
    /// Transactions of all different blocks.
    pub transactions: u64,
    /// Transactions of canonical blocks.
    pub canonical_transactions: u64,
    /// Events of all different blocks.
    pub events: u64,
    /// Events of canonical blocks.
    pub canonical_events: u64,
    /// Always 0: current nodes send no events of undone transactions.
    pub uncommitted_events: u64,
    /// Canonical transactions by type; operations made on Bitcoin count as `none`.
    pub canonical_tx_types: BTreeMap<String, u64>,
}

/// One switch of the canonical chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reorg {
    /// Height of the block that decided it.
    pub at_height: u64,
    /// That block.
    pub by_index_block_hash: String,
    /// Height of the last block that both chains share.
    pub fork_point_height: u64,
    /// The blocks that left the canonical chain.
    pub orphaned: Vec<Orphan>,
}

/// A block that was canonical for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub index_block_hash: String,
}

/// sha256 as lower-case hex.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Digests {
    /// Of the blocks and their links.
    pub blocks: String,
    /// Of the transactions as decoded.
    pub transactions: String,
    /// Of the events without their data.
    pub events: String,
}

impl Reorg {
    /// What an early losing branch leads to.
    pub(super) fn of(chain: &Chain, fork: Fork) -> Self {
        let id = |height, branch| chain.header(height, branch).own.index_hash;
        let orphan = |height| Orphan { height, index_block_hash: id(height, Branch::Loser { from: fork.from }) };
        Self {
            at_height: fork.end(),
            by_index_block_hash: id(fork.end(), Branch::Winner),
            fork_point_height: fork.from - 1,
            orphaned: (fork.from..fork.end()).map(orphan).collect(),
        }
    }
}

/// Digests of the canonical chain of `blocks` blocks, and its transactions by type.
pub(super) fn digests(chain: &Chain, blocks: u64) -> (Digests, BTreeMap<String, u64>) {
    let (mut hashes, mut types) = ([Sha256::new(), Sha256::new(), Sha256::new()], BTreeMap::new());
    visit(
        &mut |height| {
            let block = chain.block(height, Branch::Winner);
            for tx in &block.transactions {
                let kind = if tx.kind == "unknown" { "none" } else { tx.kind };
                *types.entry(kind.to_owned()).or_default() += 1;
            }
            for (hash, mut lines) in hashes.iter_mut().zip(lines(&block)) {
                lines.sort_unstable();
                lines.iter().for_each(|line| hash.update(line));
            }
        },
        blocks,
    );
    let [blocks, transactions, events] = hashes.map(|hash| hex::encode(hash.finalize()));
    (Digests { blocks, transactions, events }, types)
}

/// Visits all heights below `blocks` in the order of the texts `<height>|`: since `|` sorts after every digit, 10 to 19 come
/// before 1, and so on.
fn visit(block: &mut impl FnMut(u64), blocks: u64) {
    fn below(prefix: u64, visit: &mut impl FnMut(u64), blocks: u64) {
        if prefix >= blocks {
            return;
        }
        for digit in 0..10 {
            below(prefix * 10 + digit, visit, blocks);
        }
        visit(prefix);
    }
    if blocks > 0 {
        block(0);
    }
    (1..10).for_each(|first| below(first, block, blocks));
}

fn lines(block: &Drawn) -> [Vec<String>; 3] {
    let header = &block.header;
    let height = header.height;
    let own = format!("{height}|{}|{}|{}\n", header.own.hash, header.own.index_hash, header.parent.index_hash);
    let (mut transactions, mut events) = (vec![], vec![]);
    for (index, tx) in block.transactions.iter().enumerate() {
        let head = format!("{height}|{}|{index}|{}", tx.tx_id, tx.status);
        let (contract, function) = (tx.contract_id.as_deref().unwrap_or_default(), tx.function_name.unwrap_or_default());
        transactions.push(match tx.kind {
            "unknown" => format!("{head}|||||\n"),
            kind => format!("{head}|{kind}|{}|{contract}|{function}|{}\n", tx.sender, tx.function_args.join(",")),
        });
        for event in &tx.events {
            events.push(format!("{height}|{}|{}|{}|true\n", tx.tx_id, events.len(), event.kind));
        }
    }
    [vec![own], transactions, events]
}

#[cfg(test)]
mod tests {
    use super::visit;

    #[test]
    fn heights_are_visited_in_the_order_their_lines_sort() {
        for blocks in [1, 2, 9, 10, 11, 99, 100, 101, 1_234] {
            let mut visited = vec![];
            visit(&mut |height| visited.push(height), blocks);
            let mut sorted: Vec<u64> = (0..blocks).collect();
            sorted.sort_by_key(|height| format!("{height}|"));
            assert_eq!(visited, sorted);
        }
    }
}
