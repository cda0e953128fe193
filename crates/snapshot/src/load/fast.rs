//! Rows, a transaction per table, frozen as they are written: no later rewrite by vacuum and, where `wal_level` is minimal, next to
//! no WAL. A table that was interrupted begins anew; one that was committed stays.
//!
//! A table is loaded by one connection, and one table is most of the chain: meanwhile the others build the indexes of tables that
//! are there already.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::Connection;

use super::copy::{Freeze, copy};
use super::indexes::Index;
use super::rows::{Loaded, shape, tell};
use super::worklist::{Until, Work, Worklist};
use super::{Job, LoadError, Part, ledger};
use crate::columns::TableShape;

/// Loads every table of the selection that is not there yet, and builds indexes with connections that have no table to load.
pub(super) async fn load(job: &Job<'_>, indexes: &[Index]) -> Result<Loaded, LoadError> {
    let parts = job.options.selection.parts(&job.opened.manifest)?;
    let before = ledger::loaded(job.pool).await.map_err(LoadError::at("read what is done"))?;
    let total: u64 = parts.iter().map(|part| part.chunk.raw_bytes).sum();
    let mut tables: Vec<VecDeque<Part>> = Vec::new();
    let (mut chunks_before, mut bytes_before) = (0, 0);
    for part in parts {
        if before.contains(&ledger::Loaded::of(&part.chunk)) {
            chunks_before += 1;
            bytes_before += part.chunk.raw_bytes;
            continue;
        }
        match tables.iter_mut().find(|parts| parts.front().is_some_and(|first| first.chunk.table == part.chunk.table)) {
            Some(parts) => parts.push_back(part),
            None => tables.push(VecDeque::from([part])),
        }
    }
    tables.sort_by_key(|parts| std::cmp::Reverse(parts.iter().map(|part| part.chunk.raw_bytes).sum::<u64>()));
    let done = AtomicU64::new(bytes_before);
    let rows = AtomicU64::new(0);
    let list = Worklist::new(indexes, Until::Rows, tables.into(), VecDeque::new());
    let workers = (0..job.options.jobs.max(1)).map(|_| work(job, &list, (&done, &rows)));
    tokio::select! {
        worked = try_join_all(workers) => worked.map(|_| ())?,
        () = tell(job, &done, total) => {}
    }
    job.watch.progress(total, total, "bytes");
    Ok(Loaded { rows: rows.into_inner(), raw_bytes: done.load(Ordering::Relaxed) - bytes_before, chunks_before })
}

async fn work(job: &Job<'_>, list: &Worklist<'_>, (done, rows): (&AtomicU64, &AtomicU64)) -> Result<(), LoadError> {
    while let Some(work) = list.next().await {
        match work {
            Work::Index(index) => {
                index.build(job).await?;
                list.built(index);
            }
            Work::Rows(parts) => {
                let table = parts.front().map(|part| part.chunk.table.clone()).unwrap_or_default();
                rows.fetch_add(load_table(job, parts, done).await?, Ordering::Relaxed);
                list.loaded(&table);
            }
        }
    }
    Ok(())
}

/// One table. Chunks of it that an earlier run loaded one by one are no reason to keep them: the table is truncated first.
async fn load_table(job: &Job<'_>, mut parts: VecDeque<Part>, done: &AtomicU64) -> Result<u64, LoadError> {
    let Some(table) = parts.front().map(|part| part.chunk.table.clone()) else { return Ok(0) };
    let all = job.options.selection.parts(&job.opened.manifest)?.into_iter().filter(|part| part.chunk.table == table);
    let whole: VecDeque<Part> = all.collect();
    if whole.len() > parts.len() {
        let sum = |parts: &VecDeque<Part>| parts.iter().map(|part| part.chunk.raw_bytes).sum::<u64>();
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
