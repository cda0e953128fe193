//! Digests of a canonical chain: equal digests mean equal chains, however they were reached.
//!
//! sha256 of sorted text lines, each ended by one newline. Blocks: `height|hash|index hash|parent index hash`;
//! transactions: `height|txid|tx_index|status|type|sender|contract_id|function_name|args` (args: `0x` hex joined by
//! commas; operations made on Bitcoin, with raw bytes `0x00`, have everything after the status empty);
//! events: `height|txid|event_index|type|committed`.

use sha2::{Digest, Sha256};

use crate::model::Block;

/// Lower-case hex of the three digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainDigests {
    /// Of the blocks and their links.
    pub blocks: String,
    /// Of the decoded transactions.
    pub transactions: String,
    /// Of the events, without their data.
    pub events: String,
}

/// Digests of blocks in any order.
#[must_use]
pub fn chain_digests<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> ChainDigests {
    let (mut chain, mut transactions, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks {
        chain.push(format!("{}|{}|{}|{}", block.height, block.hash, block.index_block_hash, block.parent_index_block_hash));
        transactions.extend(transaction_lines(block));
        events.extend(event_lines(block));
    }
    ChainDigests { blocks: digest(chain), transactions: digest(transactions), events: digest(events) }
}

fn transaction_lines(block: &Block) -> impl Iterator<Item = String> {
    block.transactions.iter().map(|tx| {
        let head = format!("{}|{}|{}|{}", block.height, tx.tx_id, tx.tx_index, tx.status);
        if tx.raw_tx == "0x00" {
            return format!("{head}|||||");
        }
        let contract = tx.contract_id.as_deref().unwrap_or_default();
        let function = tx.function_name.as_deref().unwrap_or_default();
        format!("{head}|{}|{}|{contract}|{function}|{}", tx.kind, tx.sender, tx.function_args.join(","))
    })
}

fn event_lines(block: &Block) -> impl Iterator<Item = String> {
    block.events.iter().map(|e| format!("{}|{}|{}|{}|{}", block.height, e.tx_id, e.event_index, e.kind, e.committed))
}

fn digest(mut lines: Vec<String>) -> String {
    lines.sort_unstable();
    let mut hasher = Sha256::new();
    for line in lines {
        hasher.update(line.as_bytes());
        hasher.update(b"\n");
    }
    hex::encode(hasher.finalize())
}
