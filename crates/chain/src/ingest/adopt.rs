//! Brings our record of blocks in line with chain tables that another indexer, or a restore, has written.
//!
//! Such blocks lack their index block hash; they are known by height and hash until a node delivers them again. While
//! ingest runs it is the only writer, so this happens once per process.

use sqlx::{AssertSqlSafe, PgConnection};

use super::columns::Columns;

/// Forgets canonical blocks that the chain tables no longer hold, and adopts those we have not seen.
pub(super) async fn reconcile(conn: &mut PgConnection, columns: &Columns) -> sqlx::Result<()> {
    let gone = forget_missing(conn).await?;
    let adopted = adopt_unknown(conn, columns).await?;
    if gone > 0 || adopted > 0 {
        tracing::info!(gone, adopted, "took note of blocks that another program stored or removed");
    }
    Ok(())
}

async fn forget_missing(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "delete from snapshots.chain_block c where c.canonical and not exists
             (select 1 from public.blocks b where b.height = c.height and b.hash = c.hash and b.canonical)",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

async fn adopt_unknown(conn: &mut PgConnection, columns: &Columns) -> sqlx::Result<u64> {
    // Later versions of the indexer store the id.
    let id = if columns.blocks.iter().any(|name| name == "index_block_hash") { "b.index_block_hash" } else { "null" };
    let sql = format!(
        "insert into snapshots.chain_block
             (index_block_hash, parent_index_block_hash, height, hash, parent_hash, canonical, adopted)
         select coalesce({id}, 'adopted:' || b.height || ':' || b.hash),
             'adopted:' || (b.height - 1) || ':' || b.parent_hash, b.height, b.hash, b.parent_hash, true, true
         from public.blocks b
         where b.canonical and not exists
             (select 1 from snapshots.chain_block c where c.canonical and c.height = b.height)
         order by b.height
         on conflict (index_block_hash) do update set canonical = true"
    );
    Ok(sqlx::query(AssertSqlSafe(sql)).execute(conn).await?.rows_affected())
}
