//! The indexed chain as every other part sees it: blocks, transactions and events, decoded once.
//!
//! Not the node's JSON (see `payload`), and not rows (see `ingest`).

use serde::{Deserialize, Serialize};

use crate::json::JsonText;

/// One block with everything in it. Hashes are `0x` + 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Number of blocks below this one; genesis is 0.
    pub height: u64,
    /// Header hash. Not unique across forks of one height in every network; use `index_block_hash` as the key.
    pub hash: String,
    /// Header hash of the parent; all `f` for genesis.
    pub parent_hash: String,
    /// SHA-512/256(block hash ‖ consensus hash): the only globally unique id of a block.
    pub index_block_hash: String,
    /// The parent's `index_block_hash`: the link along which the canonical chain is followed.
    pub parent_index_block_hash: String,
    /// Height of the Bitcoin block this block is anchored to.
    pub burn_block_height: u64,
    /// Hash of that Bitcoin block.
    pub burn_block_hash: String,
    /// Seconds since 1970: the block's own time since Nakamoto, before that the Bitcoin block's.
    pub timestamp: u64,
    /// In order of `tx_index`.
    pub transactions: Vec<Transaction>,
    /// In order of `event_index`.
    pub events: Vec<Event>,
}

/// One transaction, decoded from its raw bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// `0x` + 64 hex digits.
    pub tx_id: String,
    /// Position in the block, from 0.
    pub tx_index: u32,
    /// `token_transfer`, `smart_contract`, `contract_call`, `poison_microblock`, `coinbase`, `tenure_change` or `unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// c32 address of the origin, or `unknown` where the payload carries no raw transaction.
    pub sender: String,
    /// `success`, `abort_by_response`, `abort_by_post_condition`, or what a newer node says.
    pub status: String,
    /// The called contract, or `sender.name` of a deploy.
    pub contract_id: Option<String>,
    /// Of calls only.
    pub function_name: Option<String>,
    /// Of calls only: each argument's Clarity bytes as `0x` hex.
    #[serde(default)]
    pub function_args: Vec<String>,
    /// What the transaction returned, Clarity bytes as `0x` hex; `None` where the source does not say.
    #[serde(default)]
    pub raw_result: Option<String>,
    /// The whole transaction as `0x` hex; `0x00` for a Bitcoin-side operation.
    pub raw_tx: String,
}

/// One event of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The transaction that made it.
    pub tx_id: String,
    /// Position in the block (not in the transaction), from 0.
    pub event_index: u32,
    /// The node's name, for example `stx_transfer_event`; prints are `contract_event`.
    #[serde(rename = "type")]
    pub kind: String,
    /// False where a post-condition undid the transaction; such events are stored all the same.
    pub committed: bool,
    /// The object under the key named like the type; the whole event for a type we do not know.
    pub data: JsonText,
}
