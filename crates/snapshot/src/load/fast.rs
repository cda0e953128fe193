//! Rows, a transaction per table, frozen as they are written: no later rewrite by vacuum and, where `wal_level` is minimal, next to
//! no WAL. A table that was interrupted begins anew; one that was committed stays.
//!
//! A table is loaded by one connection, and one table is most of the chain: meanwhile the others build the indexes of tables that
//! are there already.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use sqlx::Connection;

use super::copy::{Freeze, copy};
use super::indexes::Index;
use super::rows::{Progress, shape, share};
use super::worklist::{Rows, Work, Worklist};
use super::{Job, LoadError, Part, Steps, ledger};
use crate::columns::TableShape;

/// Loads the tables that these chunks are of.
pub(super) async fn tables(
    job: &Job<'_>,
    parts: Vec<Part>,
    left: VecDeque<&Index>,
    progress: &Progress,
    steps: &mut Steps<'_>,
) -> Result<(), LoadError> {
    let mut tables: Vec<Rows<Vec<Part>>> = Vec::new();
    for part in parts {
        let (table, bytes) = (part.chunk.table.clone(), part.chunk.raw_bytes);
        match tables.iter_mut().find(|rows| rows.table == table) {
            Some(rows) => {
                rows.bytes += bytes;
                rows.rows.push(part);
            }
            None => tables.push(Rows { table, bytes, rows: vec![part] }),
        }
    }
    share(job, tables, left, progress, steps, async |list, worker| work(job, list, worker, progress).await).await
}

async fn work(job: &Job<'_>, list: &Worklist<'_, Vec<Part>>, worker: usize, progress: &Progress) -> Result<(), LoadError> {
    while let Some(work) = list.next(worker).await {
        match work {
            Work::Index(index) => {
                index.build(job).await?;
                list.built(index);
            }
            Work::Rows(parts) => {
                let table = parts.first().map(|part| part.chunk.table.clone()).unwrap_or_default();
                let rows = load_table(job, parts, &progress.bytes).await?;
                progress.rows.fetch_add(rows, Ordering::Relaxed);
                list.loaded(&table);
            }
        }
    }
    Ok(())
}

/// One table. Chunks of it that an earlier run loaded one by one are no reason to keep them: the table is truncated first.
async fn load_table(job: &Job<'_>, mut parts: Vec<Part>, done: &AtomicU64) -> Result<u64, LoadError> {
    let Some(table) = parts.first().map(|part| part.chunk.table.clone()) else { return Ok(0) };
    let all = job.options.selection.parts(&job.opened.manifest)?.into_iter().filter(|part| part.chunk.table == table);
    let whole: Vec<Part> = all.collect();
    if whole.len() > parts.len() {
        let sum = |parts: &[Part]| parts.iter().map(|part| part.chunk.raw_bytes).sum::<u64>();
        done.fetch_sub(sum(&whole) - sum(&parts), Ordering::Relaxed);
        parts = whole;
    }
    let at = || LoadError::at(format!("load {table} in one transaction"));
    let mut conn = job.pool.acquire().await.map_err(at())?;
    let mut tx = conn.begin().await.map_err(at())?;
    let shapes = &job.opened.manifest.shapes;
    let name = shapes.iter().find(|shape| shape.name == table).map(TableShape::qualified).unwrap_or_default();
    let truncate = format!("truncate only {name}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(truncate)).execute(&mut *tx).await.map_err(at())?;
    ledger::forget(&mut tx, &table, None).await.map_err(at())?;
    let mut rows = 0;
    // The next one is fetched while one is loaded.
    let mut fetched = std::pin::pin!(stream::iter(parts).map(|part| job.fetch(part)).buffered(2));
    while let Some(next) = fetched.try_next().await? {
        ledger::claim(&mut tx, &next.part.chunk, next.part.chunk.rows).await.map_err(at())?;
        let shape = shape(job, &next.part)?;
        rows += copy(&mut tx, shape, next, Freeze::Yes, done).await?;
    }
    tx.commit().await.map_err(at())?;
    Ok(rows)
}
