//! Statements on the chain tables: rows of a block in hand go in, rows of blocks that leave go out.

use sqlx::{AssertSqlSafe, PgConnection};

use super::columns::{Columns, quoted};
use crate::model::{Block, Transaction};

/// Inserts the block's own row; a leftover row of that height (another indexer's orphan) is overwritten, as the
/// original indexer does.
pub(super) async fn upsert_block(conn: &mut PgConnection, columns: &Columns, block: &Block) -> sqlx::Result<()> {
    let fields = columns.block_fields();
    let updates = fields.iter().map(|name| format!("\"{name}\" = excluded.\"{name}\"")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "insert into public.blocks ({}) select {} from (values ($1::bigint, $2, $3, $4::bigint, $5::bigint, true, $6, $7))
             as b (height, hash, parent_hash, burn_block_height, timestamp, canonical, burn_block_hash, index_block_hash)
         on conflict (height) do update set {updates}",
        quoted(&fields, ""),
        quoted(&fields, "b."),
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(block.height.cast_signed())
        .bind(&block.hash)
        .bind(&block.parent_hash)
        .bind(block.burn_block_height.cast_signed())
        .bind(block.timestamp.cast_signed())
        .bind(&block.burn_block_hash)
        .bind(&block.index_block_hash)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether a row of one of these transactions exists already.
pub(super) async fn any_stored(conn: &mut PgConnection, transactions: &[Transaction]) -> sqlx::Result<bool> {
    let ids: Vec<&str> = transactions.iter().map(|tx| tx.tx_id.as_str()).collect();
    sqlx::query_scalar("select exists (select 1 from public.transactions where tx_id = any($1))").bind(ids).fetch_one(conn).await
}

/// Takes these transactions out of blocks that another indexer stored. The original leaves a transaction where a lost
/// fork had it; the block that a node delivers to us is the better witness.
pub(super) async fn take_over(conn: &mut PgConnection, transactions: &[Transaction]) -> sqlx::Result<()> {
    let ids: Vec<&str> = transactions.iter().map(|tx| tx.tx_id.as_str()).collect();
    sqlx::query(
        "delete from public.events e using snapshots.chain_block c
         where e.tx_id = any($1) and c.height = e.block_height and c.canonical and c.transaction_count is null",
    )
    .bind(&ids)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "delete from public.transactions t using snapshots.chain_block c
         where t.tx_id = any($1) and c.height = t.block_height and c.canonical and c.transaction_count is null
             and not exists (select 1 from public.events e where e.tx_id = t.tx_id)",
    )
    .bind(&ids)
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts a block's transactions in one statement.
pub(super) async fn insert_transactions(conn: &mut PgConnection, columns: &Columns, block: &Block) -> sqlx::Result<()> {
    let fields = columns.transaction_fields();
    let sql = format!(
        "insert into public.transactions ({}) select {} from (
             select $1::bigint as block_height, u.tx_id, u.type, u.sender, u.status, u.contract_id, u.function_name,
                 u.raw_tx, u.tx_index, u.function_args::jsonb as function_args, u.raw_result
             from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[],
                     $10::text[], $11::text[])
                 as u (tx_id, type, sender, status, contract_id, function_name, raw_tx, tx_index, function_args, raw_result)
         ) t",
        quoted(&fields, ""),
        quoted(&fields, "t."),
    );
    let txs = &block.transactions;
    let column = |of: fn(&Transaction) -> &str| txs.iter().map(of).collect::<Vec<_>>();
    let optional = |of: fn(&Transaction) -> Option<&str>| txs.iter().map(of).collect::<Vec<_>>();
    sqlx::query(AssertSqlSafe(sql))
        .bind(block.height.cast_signed())
        .bind(column(|tx| &tx.tx_id))
        .bind(column(|tx| &tx.kind))
        .bind(column(|tx| &tx.sender))
        .bind(column(|tx| &tx.status))
        .bind(optional(|tx| tx.contract_id.as_deref()))
        .bind(optional(|tx| tx.function_name.as_deref()))
        .bind(column(|tx| &tx.raw_tx))
        .bind(txs.iter().map(|tx| tx.tx_index.cast_signed()).collect::<Vec<_>>())
        .bind(txs.iter().map(arguments).collect::<Vec<_>>())
        .bind(optional(|tx| tx.raw_result.as_deref()))
        .execute(conn)
        .await?;
    Ok(())
}

/// A call's arguments as a JSON array of hex; nothing for other transactions. Hex needs no escaping.
fn arguments(tx: &Transaction) -> Option<String> {
    let quoted = || tx.function_args.iter().map(|hex| format!("\"{hex}\"")).collect::<Vec<_>>().join(",");
    tx.function_name.is_some().then(|| format!("[{}]", quoted()))
}

/// Inserts a block's events in one statement.
pub(super) async fn insert_events(conn: &mut PgConnection, block: &Block) -> sqlx::Result<()> {
    sqlx::query(
        "insert into public.events (block_height, tx_id, event_index, type, data)
         select $1, u.tx_id, u.event_index, u.type, u.data::jsonb
         from unnest($2::text[], $3::int[], $4::text[], $5::text[]) as u (tx_id, event_index, type, data)",
    )
    .bind(block.height.cast_signed())
    .bind(block.events.iter().map(|event| event.tx_id.as_str()).collect::<Vec<_>>())
    .bind(block.events.iter().map(|event| event.event_index.cast_signed()).collect::<Vec<_>>())
    .bind(block.events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>())
    .bind(block.events.iter().map(|event| event.data.text()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes everything of these heights.
pub(super) async fn delete(conn: &mut PgConnection, heights: &[i64]) -> sqlx::Result<()> {
    delete_content(conn, heights).await?;
    sqlx::query("delete from public.blocks where height = any($1)").bind(heights).execute(conn).await?;
    Ok(())
}

/// Deletes the transactions and events of these heights, not the blocks.
pub(super) async fn delete_content(conn: &mut PgConnection, heights: &[i64]) -> sqlx::Result<()> {
    sqlx::query("delete from public.events where block_height = any($1)").bind(heights).execute(&mut *conn).await?;
    rehome(conn, heights).await?;
    sqlx::query("delete from public.transactions where block_height = any($1)").bind(heights).execute(conn).await?;
    Ok(())
}

/// The original indexer leaves a transaction at its first block when it is mined again, and writes its events at the
/// new one: such a transaction belongs where its remaining events are.
async fn rehome(conn: &mut PgConnection, heights: &[i64]) -> sqlx::Result<()> {
    sqlx::query(
        "update public.transactions t set block_height = e.block_height
         from (select t.tx_id, max(e.block_height) as block_height
               from public.transactions t join public.events e using (tx_id)
               where t.block_height = any($1) group by t.tx_id) e
         where t.tx_id = e.tx_id",
    )
    .bind(heights)
    .execute(conn)
    .await?;
    Ok(())
}
