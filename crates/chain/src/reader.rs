//! Reads canonical blocks back out of the chain tables.
//!
//! Not the chunk reader of snapshots (see `snapshot`): this one rebuilds the model, for proofs and tests.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use crate::json::JsonText;
use crate::model::{Block, Event, Transaction};
use crate::payload::describe;

#[derive(FromRow)]
struct BlockRow {
    height: i64,
    hash: String,
    parent_hash: String,
    index_block_hash: String,
    parent_index_block_hash: String,
    burn_block_height: i64,
    burn_block_hash: String,
    timestamp: i64,
    uncommitted: Vec<i32>,
}

#[derive(FromRow)]
struct TransactionRow {
    block_height: i64,
    tx_id: String,
    tx_index: i32,
    #[sqlx(rename = "type")]
    kind: String,
    sender: String,
    status: String,
    contract_id: Option<String>,
    function_name: Option<String>,
    raw_tx: String,
}

#[derive(FromRow)]
struct EventRow {
    block_height: i64,
    tx_id: String,
    event_index: i32,
    #[sqlx(rename = "type")]
    kind: String,
    data: String,
}

/// The canonical blocks of a range of heights, lowest first, transactions by `tx_index` and events by `event_index`.
/// Arguments are read out of the raw transaction; `raw_result` is not read. Where `transactions` has no `tx_index`
/// (versions before March 2026) it is 0 throughout.
///
/// # Errors
/// When a statement fails.
pub async fn read_blocks(conn: &mut PgConnection, heights: RangeInclusive<u64>) -> sqlx::Result<Vec<Block>> {
    let low = i64::try_from(*heights.start()).unwrap_or(i64::MAX);
    let high = i64::try_from(*heights.end()).unwrap_or(i64::MAX);
    let mut blocks = BTreeMap::new();
    let mut uncommitted = BTreeMap::new();
    for row in block_rows(conn, low, high).await? {
        uncommitted.insert(row.height, row.uncommitted.clone());
        blocks.insert(row.height, block(row));
    }
    for row in transaction_rows(conn, low, high).await? {
        if let Some(block) = blocks.get_mut(&row.block_height) {
            block.transactions.push(transaction(row));
        }
    }
    for row in event_rows(conn, low, high).await? {
        let undone = uncommitted.get(&row.block_height).is_some_and(|list| list.contains(&row.event_index));
        if let Some(block) = blocks.get_mut(&row.block_height) {
            block.events.push(event(row, !undone)?);
        }
    }
    Ok(blocks.into_values().collect())
}

async fn block_rows(conn: &mut PgConnection, low: i64, high: i64) -> sqlx::Result<Vec<BlockRow>> {
    sqlx::query_as(
        "select b.height, b.hash, b.parent_hash, c.index_block_hash, c.parent_index_block_hash, b.burn_block_height,
             coalesce(c.burn_block_hash, '') as burn_block_hash, b.timestamp, c.uncommitted
         from public.blocks b join snapshots.chain_block c on c.height = b.height and c.canonical
         where b.canonical and b.height between $1 and $2",
    )
    .bind(low)
    .bind(high)
    .fetch_all(conn)
    .await
}

async fn transaction_rows(conn: &mut PgConnection, low: i64, high: i64) -> sqlx::Result<Vec<TransactionRow>> {
    let indexed: bool = sqlx::query_scalar(
        "select exists (select 1 from information_schema.columns where table_schema = 'public'
             and table_name = 'transactions' and column_name = 'tx_index')",
    )
    .fetch_one(&mut *conn)
    .await?;
    let sql = format!(
        "select block_height, tx_id, {} as tx_index, type, sender, status, contract_id, function_name, raw_tx
         from public.transactions where block_height between $1 and $2 order by block_height, 3, tx_id",
        if indexed { "tx_index" } else { "0" }
    );
    sqlx::query_as(AssertSqlSafe(sql)).bind(low).bind(high).fetch_all(conn).await
}

async fn event_rows(conn: &mut PgConnection, low: i64, high: i64) -> sqlx::Result<Vec<EventRow>> {
    sqlx::query_as(
        "select block_height, tx_id, event_index, type, data::text as data
         from public.events where block_height between $1 and $2 order by block_height, event_index, tx_id, id",
    )
    .bind(low)
    .bind(high)
    .fetch_all(conn)
    .await
}

fn block(row: BlockRow) -> Block {
    Block {
        height: row.height.unsigned_abs(),
        hash: row.hash,
        parent_hash: row.parent_hash,
        index_block_hash: row.index_block_hash,
        parent_index_block_hash: row.parent_index_block_hash,
        burn_block_height: row.burn_block_height.unsigned_abs(),
        burn_block_hash: row.burn_block_hash,
        timestamp: row.timestamp.unsigned_abs(),
        transactions: Vec::new(),
        events: Vec::new(),
    }
}

fn transaction(row: TransactionRow) -> Transaction {
    let raw = hex::decode(row.raw_tx.trim_start_matches("0x")).unwrap_or_default();
    Transaction {
        function_args: describe(&raw).map(|described| described.function_args).unwrap_or_default(),
        tx_id: row.tx_id,
        tx_index: row.tx_index.unsigned_abs(),
        kind: row.kind,
        sender: row.sender,
        status: row.status,
        contract_id: row.contract_id,
        function_name: row.function_name,
        raw_result: None,
        raw_tx: row.raw_tx,
    }
}

fn event(row: EventRow, committed: bool) -> sqlx::Result<Event> {
    let data = JsonText::parse(row.data).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(Event { tx_id: row.tx_id, event_index: row.event_index.unsigned_abs(), kind: row.kind, committed, data })
}
