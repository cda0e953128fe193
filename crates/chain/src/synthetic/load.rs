//! The canonical chain straight into the chain tables by COPY.
//!
//! Not ingest: it writes only into empty tables. Invariants: each transaction commits whole blocks together with
//! `index_progress`; generating goes on in its own thread while the database works; memory is a few batches.

use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;

use super::drawn::{Chain, Purpose};
use super::header::Branch;
use super::rows::{self, Columns, Rows};
use super::{Spec, SyntheticError};

/// Blocks of one database transaction …
const BATCH_BLOCKS: u64 = 4_000;
/// … or fewer, when their text is longer than this.
const BATCH_BYTES: usize = 24 << 20;

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct LoadReport {
    /// Blocks.
    pub blocks: u64,
    /// Transactions.
    pub transactions: u64,
    /// Events.
    pub events: u64,
    /// Bytes of COPY text sent.
    pub bytes: u64,
}

/// Loads the canonical chain into a database that [`crate::migrate()`] made ready and that has no blocks. `progress` hears
/// the number of blocks loaded so far after each commit.
///
/// # Errors
/// See [`SyntheticError`]. What was committed before a failure stays, and the next load refuses it.
pub async fn load(pool: &PgPool, spec: &Spec, mut progress: impl FnMut(u64)) -> Result<LoadReport, SyntheticError> {
    if spec.blocks == 0 {
        return Err(SyntheticError::NoBlocks);
    }
    let mut conn = pool.acquire().await.map_err(|source| SyntheticError::Database { doing: "reach the database", source })?;
    let columns = discover(&mut conn).await?;
    refuse_blocks(&mut conn).await?;
    let (sender, mut batches) = mpsc::channel(1);
    let (chain, blocks, known) = (Chain::new(spec), spec.blocks, columns.clone());
    let generator = tokio::task::spawn_blocking(move || generate(&chain, blocks, &known, &sender));
    let mut report = LoadReport { blocks: 0, transactions: 0, events: 0, bytes: 0 };
    while let Some(batch) = batches.recv().await {
        store(&mut conn, &columns, &spec.network, &batch)
            .await
            .map_err(|source| SyntheticError::Database { doing: "load the rows", source })?;
        report.blocks += batch.counts[0];
        report.transactions += batch.counts[1];
        report.events += batch.counts[2];
        report.bytes += batch.bytes() as u64;
        progress(report.blocks);
    }
    generator.await.map_err(|_| SyntheticError::Generator)?;
    Ok(report)
}

/// Makes batches until the chain ends, or nobody listens any more.
fn generate(chain: &Chain, blocks: u64, columns: &Columns, sender: &mpsc::Sender<Rows>) {
    let mut batch = Rows::default();
    for height in 0..blocks {
        batch.push(columns, &chain.block(height, Branch::Winner), &mut chain.stream(height, Purpose::RowIds));
        let full = batch.counts[0] >= BATCH_BLOCKS || batch.bytes() >= BATCH_BYTES;
        if (full || height + 1 == blocks) && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
            return;
        }
    }
}

async fn store(conn: &mut PgConnection, columns: &Columns, network: &str, batch: &Rows) -> sqlx::Result<()> {
    let mut tx = sqlx::Connection::begin(conn).await?;
    copy(&mut tx, "public.blocks", &columns.blocks, &batch.blocks).await?;
    copy(&mut tx, "public.transactions", &columns.transactions, &batch.transactions).await?;
    copy(&mut tx, "public.events", &columns.events, &batch.events).await?;
    copy(&mut tx, "snapshots.chain_block", &columns.parentage, &batch.parentage).await?;
    set_progress(&mut tx, network, batch.last).await?;
    tx.commit().await
}

async fn copy(conn: &mut PgConnection, table: &str, columns: &[&str], text: &[u8]) -> sqlx::Result<()> {
    let mut copy = conn.copy_in_raw(&format!("copy {table} ({}) from stdin", columns.join(", "))).await?;
    copy.send(text).await?;
    copy.finish().await?;
    Ok(())
}

async fn set_progress(conn: &mut PgConnection, network: &str, (height, time): (u64, u64)) -> sqlx::Result<()> {
    sqlx::query(
        "insert into public.index_progress
             (network, last_indexed_block, last_contiguous_block, highest_seen_block, updated_at)
         values ($1, $2, $2, $2, $3::timestamp)
         on conflict (network) do update set
             last_indexed_block = excluded.last_indexed_block,
             last_contiguous_block = excluded.last_contiguous_block,
             highest_seen_block = excluded.highest_seen_block,
             updated_at = excluded.updated_at",
    )
    .bind(network)
    .bind(height.cast_signed())
    .bind(rows::created_at(time))
    .execute(conn)
    .await?;
    Ok(())
}

async fn refuse_blocks(conn: &mut PgConnection) -> Result<(), SyntheticError> {
    let blocks: i64 =
        sqlx::query_scalar("select greatest((select count(*) from public.blocks), (select count(*) from snapshots.chain_block))")
            .fetch_one(conn)
            .await
            .map_err(|source| SyntheticError::Database { doing: "count the blocks", source })?;
    if blocks > 0 { Err(SyntheticError::NotEmpty { blocks }) } else { Ok(()) }
}

async fn discover(conn: &mut PgConnection) -> Result<Columns, SyntheticError> {
    Ok(Columns {
        blocks: fillable(conn, "public.blocks", rows::BLOCK, 6).await?,
        transactions: fillable(conn, "public.transactions", rows::TRANSACTION, 8).await?,
        events: fillable(conn, "public.events", rows::EVENT, 6).await?,
        parentage: fillable(conn, "snapshots.chain_block", rows::PARENTAGE, 9).await?,
    })
}

/// Those of the columns we can fill that the table has; the first `needed` must be there, and no other may have to be filled.
async fn fillable(
    conn: &mut PgConnection,
    table: &'static str,
    known: &'static [&'static str],
    needed: usize,
) -> Result<Vec<&'static str>, SyntheticError> {
    let found =
        table_columns(conn, table).await.map_err(|source| SyntheticError::Database { doing: "read the catalog", source })?;
    let has = |column: &&str| found.iter().any(|(name, _)| name == column);
    if let Some(column) = known[..needed].iter().find(|column| !has(column)) {
        return Err(SyntheticError::MissingColumn { table, column });
    }
    if let Some((column, _)) = found.iter().find(|(name, must)| *must && !known.contains(&name.as_str())) {
        return Err(SyntheticError::UnknownColumn { table, column: column.clone() });
    }
    Ok(known.iter().copied().filter(|column| has(column)).collect())
}

/// Names of a table's columns, and whether each must be filled; nothing when there is no such table.
async fn table_columns(conn: &mut PgConnection, table: &str) -> sqlx::Result<Vec<(String, bool)>> {
    sqlx::query_as(
        "select attname::text, attnotnull and not atthasdef and attidentity = ''
         from pg_attribute
         where attrelid = to_regclass($1) and attnum > 0 and not attisdropped and attgenerated = ''
         order by attnum",
    )
    .bind(table)
    .fetch_all(conn)
    .await
}
