//! Rows of the chain tables as COPY text, column by column as the database has them.
//!
//! No SQL (see `load`). Invariant: the rows that ingesting the same blocks would store; ids and `created_at`, which ingest
//! takes from chance and the clock, follow from the seed and the block's time.

use chrono::DateTime;

use super::draw::Draw;
use super::drawn::Drawn;
use super::emit::Emitted;
use super::transaction::Tx;

/// What a block fills in `blocks`; the first six are in every version.
pub(super) const BLOCK: &[&str] = &[
    "height",
    "hash",
    "parent_hash",
    "burn_block_height",
    "timestamp",
    "canonical",
    "burn_block_hash",
    "index_block_hash",
    "created_at",
];
/// What a transaction fills; the first eight are in every version.
pub(super) const TRANSACTION: &[&str] = &[
    "block_height",
    "tx_id",
    "type",
    "sender",
    "status",
    "contract_id",
    "function_name",
    "raw_tx",
    "tx_index",
    "function_args",
    "raw_result",
    "created_at",
];
/// What an event fills, in every version.
pub(super) const EVENT: &[&str] = &["id", "block_height", "tx_id", "event_index", "type", "data", "created_at"];
/// What a block fills in our own table of parents.
pub(super) const PARENTAGE: &[&str] = &[
    "index_block_hash",
    "parent_index_block_hash",
    "height",
    "hash",
    "parent_hash",
    "burn_block_hash",
    "canonical",
    "transaction_count",
    "event_count",
    "received_at",
];

/// The columns to fill, per table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) blocks: Vec<&'static str>,
    pub(super) transactions: Vec<&'static str>,
    pub(super) events: Vec<&'static str>,
    pub(super) parentage: Vec<&'static str>,
}

/// COPY text of some blocks.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) blocks: Vec<u8>,
    pub(super) transactions: Vec<u8>,
    pub(super) events: Vec<u8>,
    pub(super) parentage: Vec<u8>,
    /// Blocks, transactions and events in here.
    pub(super) counts: [u64; 3],
    /// Height and time of the last block.
    pub(super) last: (u64, u64),
}

impl Rows {
    /// Bytes of text.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() + self.transactions.len() + self.events.len() + self.parentage.len()
    }

    /// Appends a block; `ids` is its stream of row ids.
    pub(super) fn push(&mut self, columns: &Columns, block: &Drawn, ids: &mut Draw) {
        let created = created_at(block.header.timestamp());
        row(&mut self.blocks, &columns.blocks, |column, cell| block_cell(cell, column, block, &created));
        row(&mut self.parentage, &columns.parentage, |column, cell| block_cell(cell, column, block, &created));
        let height = block.header.height;
        let (mut event_index, mut number) = (0_u64, 0_u64);
        for tx in &block.transactions {
            let place = Place { height, index: number, created: &created };
            row(&mut self.transactions, &columns.transactions, |column, cell| transaction_cell(cell, column, tx, place));
            for event in &tx.events {
                let id = uuid::Builder::from_random_bytes(ids.bytes()).into_uuid().to_string();
                let place = Place { height, index: event_index, created: &created };
                row(&mut self.events, &columns.events, |column, cell| event_cell(cell, column, (&id, &tx.tx_id, event), place));
                event_index += 1;
            }
            number += 1;
        }
        for (count, more) in self.counts.iter_mut().zip([1, number, event_index]) {
            *count += more;
        }
        self.last = (height, block.header.timestamp());
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    height: u64,
    index: u64,
    created: &'a str,
}

/// UTC, without a zone, as the indexer's `timestamp` columns hold it.
pub(super) fn created_at(seconds: u64) -> String {
    DateTime::from_timestamp(seconds.cast_signed(), 0).unwrap_or_default().format("%Y-%m-%d %H:%M:%S").to_string()
}

fn row(out: &mut Vec<u8>, columns: &[&'static str], mut cell: impl FnMut(&str, &mut Vec<u8>)) {
    for (position, column) in columns.iter().enumerate() {
        if position > 0 {
            out.push(b'\t');
        }
        cell(column, out);
    }
    out.push(b'\n');
}

fn block_cell(out: &mut Vec<u8>, column: &str, block: &Drawn, created: &str) {
    let header = &block.header;
    match column {
        "height" => number(out, header.height),
        "hash" => text(out, &header.own.hash),
        "parent_hash" => text(out, &header.parent.hash),
        "index_block_hash" => text(out, &header.own.index_hash),
        "parent_index_block_hash" => text(out, &header.parent.index_hash),
        "burn_block_height" => number(out, header.burn.height),
        "burn_block_hash" => text(out, &header.burn.hash),
        "timestamp" => number(out, header.timestamp()),
        "canonical" => out.push(b't'),
        "transaction_count" => number(out, block.transactions.len() as u64),
        "event_count" => number(out, block.events() as u64),
        "created_at" => text(out, created),
        _ => {
            text(out, created);
            out.extend_from_slice(b"+00"); // received_at has a zone
        }
    }
}

fn transaction_cell(out: &mut Vec<u8>, column: &str, tx: &Tx, place: Place<'_>) {
    match column {
        "block_height" => number(out, place.height),
        "tx_id" => text(out, &tx.tx_id),
        "tx_index" => number(out, place.index),
        "type" => text(out, tx.kind),
        "sender" => text(out, &tx.sender),
        "status" => text(out, tx.status),
        "contract_id" => optional(out, tx.contract_id.as_deref()),
        "function_name" => optional(out, tx.function_name),
        "function_args" => optional(out, arguments(tx).as_deref()),
        "raw_result" => text(out, &tx.raw_result),
        "raw_tx" => text(out, &tx.raw_tx),
        _ => text(out, place.created),
    }
}

fn event_cell(out: &mut Vec<u8>, column: &str, (id, tx_id, event): (&str, &str, &Emitted), place: Place<'_>) {
    match column {
        "id" => text(out, id),
        "block_height" => number(out, place.height),
        "tx_id" => text(out, tx_id),
        "event_index" => number(out, place.index),
        "type" => text(out, event.kind),
        "data" => text(out, &event.data),
        _ => text(out, place.created),
    }
}

/// A JSON array of hex strings, of calls only.
fn arguments(tx: &Tx) -> Option<String> {
    let quoted: Vec<String> = tx.function_args.iter().map(|arg| format!("\"{arg}\"")).collect();
    (tx.kind == "contract_call").then(|| format!("[{}]", quoted.join(",")))
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(value.to_string().as_bytes());
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => out.extend_from_slice(b"\\N"),
    }
}

/// A value with the escapes of COPY's text format (PostgreSQL manual, "COPY", file formats).
fn text(out: &mut Vec<u8>, value: &str) {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{created_at, optional, text};

    #[test]
    fn special_characters_and_nulls_are_escaped() {
        let mut out = vec![];
        text(&mut out, "a\\b\tc\nd\re");
        optional(&mut out, None);
        assert_eq!(out, b"a\\\\b\\tc\\nd\\re\\N");
    }

    #[test]
    fn times_are_utc_without_a_zone() {
        assert_eq!(created_at(1_730_160_000), "2024-10-29 00:00:00");
    }
}
