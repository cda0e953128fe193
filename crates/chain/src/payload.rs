//! The body of a node's `POST /new_block`, read into a [`Block`].
//!
//! Not storage. Invariants: what comes out is sorted (the node sends events unordered) and holds no NUL character; a
//! transaction whose bytes have a layout we do not know becomes type `unknown` rather than losing its block.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{JsonText, strip_nuls};
use crate::model::{Block, Event, Transaction};
use crate::transaction::{Payload, RawTransaction, TransactionError};

/// What the indexer writes where a transaction has no type or sender of its own.
pub const UNKNOWN: &str = "unknown";

/// The event types whose object is stored; of any other the whole event is.
const KNOWN_EVENTS: [&str; 12] = [
    "stx_transfer_event",
    "stx_mint_event",
    "stx_burn_event",
    "stx_lock_event",
    "ft_transfer_event",
    "ft_mint_event",
    "ft_burn_event",
    "nft_transfer_event",
    "nft_mint_event",
    "nft_burn_event",
    "contract_event",
    "smart_contract_event",
];

/// Why a body is no block.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not text.
    #[error("the body is not utf-8: byte {0} is wrong")]
    NotText(usize),
    /// Not the JSON of a block.
    #[error("the body is not the JSON of a block: {0}")]
    Json(serde_json::Error),
    /// A field with an impossible value.
    #[error("{field} is {found:?}, expected {expected}")]
    Field {
        /// Its name.
        field: String,
        /// What it holds, shortened.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// A block and what had to be done to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The block.
    pub block: Block,
    /// NUL characters taken out of strings.
    pub nuls: usize,
    /// Transactions (id, reason) stored as type `unknown` because their bytes have no layout we know.
    pub undecodable: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct NodeBlock<'a> {
    block_height: u64,
    block_hash: String,
    parent_block_hash: String,
    index_block_hash: String,
    parent_index_block_hash: String,
    burn_block_height: u64,
    burn_block_hash: String,
    burn_block_time: u64,
    #[serde(default)]
    block_time: Option<u64>,
    transactions: Vec<NodeTransaction>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct NodeTransaction {
    txid: String,
    tx_index: u32,
    status: String,
    raw_tx: String,
    #[serde(default)]
    raw_result: Option<String>,
}

#[derive(Deserialize)]
struct NodeEvent {
    txid: String,
    event_index: u32,
    committed: bool,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads the body of a `POST /new_block`.
///
/// # Errors
/// See [`PayloadError`].
pub fn decode_block(body: &[u8]) -> Result<Decoded, PayloadError> {
    let text = std::str::from_utf8(body).map_err(|e| PayloadError::NotText(e.valid_up_to()))?;
    let (text, nuls) = strip_nuls(text);
    let node: NodeBlock<'_> = serde_json::from_str(&text).map_err(PayloadError::Json)?;
    check(&node)?;
    let mut undecodable = Vec::new();
    let mut transactions = Vec::with_capacity(node.transactions.len());
    for tx in node.transactions {
        let (tx, problem) = transaction(tx)?;
        undecodable.extend(problem.map(|e| (tx.tx_id.clone(), e.to_string())));
        transactions.push(tx);
    }
    transactions.sort_by_key(|tx| tx.tx_index);
    let mut events = node.events.into_iter().map(event).collect::<Result<Vec<_>, _>>()?;
    events.sort_by_key(|event| event.event_index);
    let block = Block {
        height: node.block_height,
        hash: node.block_hash,
        parent_hash: node.parent_block_hash,
        index_block_hash: node.index_block_hash,
        parent_index_block_hash: node.parent_index_block_hash,
        burn_block_height: node.burn_block_height,
        burn_block_hash: node.burn_block_hash,
        timestamp: node.block_time.unwrap_or(node.burn_block_time),
        transactions,
        events,
    };
    Ok(Decoded { block, nuls, undecodable })
}

/// Reads a transaction's own bytes into the fields a row needs.
///
/// # Errors
/// When the bytes have no layout we know.
pub fn describe(raw: &[u8]) -> Result<Described, TransactionError> {
    let tx = RawTransaction::decode(raw)?;
    let sender = tx.sender();
    let kind = tx.payload.kind();
    let (contract_id, function_name, function_args) = match tx.payload {
        Payload::SmartContract { name, .. } => (Some(format!("{sender}.{name}")), None, Vec::new()),
        Payload::ContractCall { contract, function, arguments } => {
            let arguments = arguments.iter().map(|bytes| format!("0x{}", hex::encode(bytes))).collect();
            (contract.text().ok(), Some(function), arguments)
        }
        _ => (None, None, Vec::new()),
    };
    Ok(Described { kind, sender, contract_id, function_name, function_args })
}

/// The fields of a [`Transaction`] that its bytes give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// See [`Transaction::kind`].
    pub kind: &'static str,
    /// See [`Transaction::sender`].
    pub sender: String,
    /// See [`Transaction::contract_id`].
    pub contract_id: Option<String>,
    /// See [`Transaction::function_name`].
    pub function_name: Option<String>,
    /// See [`Transaction::function_args`].
    pub function_args: Vec<String>,
}

fn transaction(node: NodeTransaction) -> Result<(Transaction, Option<TransactionError>), PayloadError> {
    check_hash("txid", &node.txid)?;
    if node.tx_index > i32::MAX.unsigned_abs() {
        return Err(wrong("tx_index", &node.tx_index.to_string(), "at most 2147483647"));
    }
    let raw = hex_bytes("raw_tx", &node.raw_tx)?;
    let nothing =
        || Described { kind: UNKNOWN, sender: UNKNOWN.into(), contract_id: None, function_name: None, function_args: Vec::new() };
    // The node sends a lone zero byte for an operation made on Bitcoin: there is no Stacks transaction to read.
    let (described, problem) =
        if raw == [0] { (nothing(), None) } else { describe(&raw).map_or_else(|e| (nothing(), Some(e)), |d| (d, None)) };
    let tx = Transaction {
        tx_id: node.txid,
        tx_index: node.tx_index,
        kind: described.kind.to_owned(),
        sender: described.sender,
        status: node.status,
        contract_id: described.contract_id.map(without_nuls),
        function_name: described.function_name.map(without_nuls),
        function_args: described.function_args,
        raw_result: node.raw_result,
        raw_tx: node.raw_tx,
    };
    Ok((tx, problem))
}

/// Names come out of raw bytes, where a NUL can hide from the check on the JSON.
fn without_nuls(name: String) -> String {
    if name.contains('\0') { name.replace('\0', "") } else { name }
}

fn event(raw: &RawValue) -> Result<Event, PayloadError> {
    let node: NodeEvent = serde_json::from_str(raw.get()).map_err(PayloadError::Json)?;
    check_hash("an event's txid", &node.txid)?;
    if node.event_index > i32::MAX.unsigned_abs() {
        return Err(wrong("event_index", &node.event_index.to_string(), "at most 2147483647"));
    }
    let data = if KNOWN_EVENTS.contains(&node.kind.as_str()) { inner_object(raw, &node.kind)? } else { raw.into() };
    Ok(Event { tx_id: node.txid, event_index: node.event_index, kind: node.kind, committed: node.committed, data })
}

fn inner_object(raw: &RawValue, kind: &str) -> Result<JsonText, PayloadError> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).map_err(PayloadError::Json)?;
    match fields.get(kind) {
        Some(inner) => Ok((*inner).into()),
        None => Err(wrong("an event", raw.get(), "an object under the key named like its type")),
    }
}

fn check(node: &NodeBlock<'_>) -> Result<(), PayloadError> {
    for (field, hash) in [
        ("block_hash", &node.block_hash),
        ("parent_block_hash", &node.parent_block_hash),
        ("index_block_hash", &node.index_block_hash),
        ("parent_index_block_hash", &node.parent_index_block_hash),
        ("burn_block_hash", &node.burn_block_hash),
    ] {
        check_hash(field, hash)?;
    }
    let time = node.block_time.unwrap_or(node.burn_block_time);
    for (field, number) in
        [("block_height", node.block_height), ("burn_block_height", node.burn_block_height), ("block_time", time)]
    {
        if i64::try_from(number).is_err() {
            return Err(wrong(field, &number.to_string(), "a number of at most 63 bits"));
        }
    }
    Ok(())
}

fn check_hash(field: &'static str, text: &str) -> Result<(), PayloadError> {
    let digits = text.strip_prefix("0x").unwrap_or_default();
    if digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(wrong(field, text, "0x and 64 lower-case hex digits"))
}

fn hex_bytes(field: &'static str, text: &str) -> Result<Vec<u8>, PayloadError> {
    text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok()).ok_or_else(|| wrong(field, text, "0x and hex digits"))
}

fn wrong(field: &str, found: &str, expected: &'static str) -> PayloadError {
    PayloadError::Field { field: field.to_owned(), found: found.chars().take(100).collect(), expected }
}
