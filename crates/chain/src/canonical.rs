//! The canonical chain of a set of blocks, by definition: the highest block (first arrived wins a tie), walked back over
//! its parents; where a parent was not recorded, the chain goes on with the highest block below.
//!
//! Pure, and whole: it looks at every block. `ingest` reaches the same answer block by block in the database; the tests
//! hold the two equal.

use std::collections::{BTreeMap, HashMap};

use crate::model::Block;

/// The canonical blocks among `arrived` (in order of arrival; redeliveries are ignored unless the first delivery had no
/// transactions, as a restarted node's genesis has), lowest first.
#[must_use]
pub fn canonical_chain(arrived: &[Block]) -> Vec<&Block> {
    let mut by_id: HashMap<&str, &Block> = HashMap::new();
    let mut first_at: BTreeMap<u64, &str> = BTreeMap::new();
    for block in arrived {
        first_at.entry(block.height).or_insert(&block.index_block_hash);
        let known = by_id.entry(&block.index_block_hash).or_insert(block);
        if known.transactions.is_empty() {
            *known = block;
        }
    }
    let mut chain = Vec::new();
    let mut next = first_at.values().next_back().copied();
    while let Some(block) = next.and_then(|id| by_id.get(id)) {
        chain.push(*block);
        let parent = by_id.get(block.parent_index_block_hash.as_str()).filter(|parent| parent.height < block.height);
        next = match parent {
            Some(parent) => Some(parent.index_block_hash.as_str()),
            None => first_at.range(..block.height).next_back().map(|(_, id)| *id),
        };
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u64, id: &str, parent: &str) -> Block {
        Block {
            height,
            hash: id.into(),
            parent_hash: parent.into(),
            index_block_hash: id.into(),
            parent_index_block_hash: parent.into(),
            burn_block_height: 0,
            burn_block_hash: String::new(),
            timestamp: 0,
            transactions: Vec::new(),
            events: Vec::new(),
        }
    }

    fn ids(blocks: &[Block]) -> Vec<&str> {
        canonical_chain(blocks).iter().map(|b| b.index_block_hash.as_str()).collect()
    }

    #[test]
    fn the_first_of_two_tips_stands_until_the_other_grows() {
        let mut blocks = vec![block(0, "g", "-"), block(1, "a", "g"), block(1, "b", "g")];
        assert_eq!(ids(&blocks), ["g", "a"]);
        blocks.push(block(2, "b2", "b"));
        assert_eq!(ids(&blocks), ["g", "b", "b2"]);
    }

    #[test]
    fn a_missing_parent_is_bridged_by_the_highest_block_below() {
        let blocks = [block(0, "g", "-"), block(2, "x", "lost"), block(5, "t", "gone")];
        assert_eq!(ids(&blocks), ["g", "x", "t"]);
    }

    #[test]
    fn no_blocks_have_no_chain_and_a_block_that_is_its_own_parent_ends() {
        assert!(ids(&[]).is_empty());
        assert_eq!(ids(&[block(3, "self", "self")]), ["self"]);
    }
}
