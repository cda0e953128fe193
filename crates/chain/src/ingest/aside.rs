//! Rows of blocks that the chain tables do not hold, kept as JSON so that they can come back, unknown columns included.

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};

use super::columns::{Columns, quoted};
use super::parentage::Link;
use crate::json::JsonText;
use crate::model::{Block, Event, Transaction};

#[derive(Serialize)]
struct BlockRow<'a> {
    height: u64,
    hash: &'a str,
    parent_hash: &'a str,
    burn_block_height: u64,
    timestamp: u64,
    canonical: bool,
    burn_block_hash: &'a str,
    index_block_hash: &'a str,
}

#[derive(Serialize)]
struct TransactionRow<'a> {
    block_height: u64,
    tx_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    sender: &'a str,
    status: &'a str,
    contract_id: Option<&'a str>,
    function_name: Option<&'a str>,
    raw_tx: &'a str,
    tx_index: u32,
    function_args: Option<&'a [String]>,
    raw_result: Option<&'a str>,
}

#[derive(Serialize)]
struct EventRow<'a> {
    block_height: u64,
    tx_id: &'a str,
    event_index: u32,
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a JsonText,
}

/// Keeps the content of a block in hand.
pub(super) async fn save_given(conn: &mut PgConnection, block: &Block) -> sqlx::Result<()> {
    let height = block.height;
    let row = BlockRow {
        height,
        hash: &block.hash,
        parent_hash: &block.parent_hash,
        burn_block_height: block.burn_block_height,
        timestamp: block.timestamp,
        canonical: true,
        burn_block_hash: &block.burn_block_hash,
        index_block_hash: &block.index_block_hash,
    };
    let transactions: Vec<_> = block.transactions.iter().map(|tx| transaction_row(height, tx)).collect();
    let events: Vec<_> = block.events.iter().map(|event| event_row(height, event)).collect();
    sqlx::query(
        "insert into snapshots.chain_aside (index_block_hash, block, transactions, events)
         values ($1, $2::jsonb, $3::jsonb, $4::jsonb) on conflict (index_block_hash) do nothing",
    )
    .bind(&block.index_block_hash)
    .bind(json(&row)?)
    .bind(json(&transactions)?)
    .bind(json(&events)?)
    .execute(conn)
    .await?;
    Ok(())
}

fn json(rows: &impl Serialize) -> sqlx::Result<String> {
    serde_json::to_string(rows).map_err(|e| sqlx::Error::Encode(e.into()))
}

fn transaction_row(block_height: u64, tx: &Transaction) -> TransactionRow<'_> {
    TransactionRow {
        block_height,
        tx_id: &tx.tx_id,
        kind: &tx.kind,
        sender: &tx.sender,
        status: &tx.status,
        contract_id: tx.contract_id.as_deref(),
        function_name: tx.function_name.as_deref(),
        raw_tx: &tx.raw_tx,
        tx_index: tx.tx_index,
        function_args: tx.function_name.is_some().then_some(&tx.function_args),
        raw_result: tx.raw_result.as_deref(),
    }
}

fn event_row(block_height: u64, event: &Event) -> EventRow<'_> {
    EventRow { block_height, tx_id: &event.tx_id, event_index: event.event_index, kind: &event.kind, data: &event.data }
}

/// Keeps the rows that the chain tables hold of a canonical block. A block that is only partly there was kept before.
pub(super) async fn save_stored(conn: &mut PgConnection, link: &Link) -> sqlx::Result<()> {
    sqlx::query(
        "insert into snapshots.chain_aside (index_block_hash, block, transactions, events)
         select $1, to_jsonb(b),
             coalesce((select jsonb_agg(to_jsonb(t)) from public.transactions t where t.block_height = $2), '[]'),
             coalesce((select jsonb_agg(to_jsonb(e)) from public.events e where e.block_height = $2), '[]')
         from public.blocks b where b.height = $2
         on conflict (index_block_hash) do nothing",
    )
    .bind(&link.id)
    .bind(link.height)
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what was kept of a block.
pub(super) async fn forget(conn: &mut PgConnection, id: &str) -> sqlx::Result<()> {
    sqlx::query("delete from snapshots.chain_aside where index_block_hash = $1").bind(id).execute(conn).await?;
    Ok(())
}

/// Inserts a kept block's own row.
pub(super) async fn restore_block(conn: &mut PgConnection, columns: &Columns, id: &str) -> sqlx::Result<()> {
    let fields = kept(conn, "jsonb_build_array(block)", id, &columns.blocks).await?;
    let updates = fields.iter().map(|name| format!("\"{name}\" = excluded.\"{name}\"")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "insert into public.blocks ({}) select {} from snapshots.chain_aside a,
             jsonb_populate_record(null::public.blocks, a.block) r where a.index_block_hash = $1
         on conflict (height) do update set {updates}",
        quoted(&fields, ""),
        quoted(&fields, "r."),
    );
    sqlx::query(AssertSqlSafe(sql)).bind(id).execute(conn).await?;
    Ok(())
}

/// Inserts a kept block's transactions, save those that stand under another block, and the events of those inserted.
/// Says whether all of them are in.
pub(super) async fn restore_content(conn: &mut PgConnection, columns: &Columns, link: &Link) -> sqlx::Result<bool> {
    let fields = kept(conn, "transactions", &link.id, &columns.transactions).await?;
    if fields.is_empty() {
        return Ok(true);
    }
    let sql = format!(
        "insert into public.transactions ({}) select {} from snapshots.chain_aside a,
             jsonb_populate_recordset(null::public.transactions, a.transactions) r where a.index_block_hash = $1
         on conflict (tx_id) do nothing",
        quoted(&fields, ""),
        quoted(&fields, "r."),
    );
    let inserted = sqlx::query(AssertSqlSafe(sql)).bind(&link.id).execute(&mut *conn).await?.rows_affected();
    restore_events(conn, columns, link).await?;
    let all: i32 =
        sqlx::query_scalar("select jsonb_array_length(transactions) from snapshots.chain_aside where index_block_hash = $1")
            .bind(&link.id)
            .fetch_one(conn)
            .await?;
    Ok(inserted == u64::from(all.unsigned_abs()))
}

async fn restore_events(conn: &mut PgConnection, columns: &Columns, link: &Link) -> sqlx::Result<()> {
    let fields = kept(conn, "events", &link.id, &columns.events).await?;
    if fields.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "insert into public.events ({}) select {} from snapshots.chain_aside a,
             jsonb_populate_recordset(null::public.events, a.events) r
         where a.index_block_hash = $1 and exists
             (select 1 from public.transactions t where t.tx_id = r.tx_id and t.block_height = $2)",
        quoted(&fields, ""),
        quoted(&fields, "r."),
    );
    sqlx::query(AssertSqlSafe(sql)).bind(&link.id).bind(link.height).execute(conn).await?;
    Ok(())
}

/// Those of a table's columns that the kept rows have; the others take their defaults.
async fn kept(conn: &mut PgConnection, rows: &'static str, id: &str, columns: &[String]) -> sqlx::Result<Vec<String>> {
    let sql = format!(
        "select jsonb_object_keys({rows} -> 0) from snapshots.chain_aside
         where index_block_hash = $1 and jsonb_array_length({rows}) > 0"
    );
    let keys: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).bind(id).fetch_all(conn).await?;
    Ok(columns.iter().filter(|column| keys.contains(column)).cloned().collect())
}
