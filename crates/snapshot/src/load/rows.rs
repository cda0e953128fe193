//! Rows, a transaction per chunk: the way that resumes at any point and works on any server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use sqlx::{Connection, PgConnection};

use super::copy::{Fetched, Freeze, copy};
use super::queue::Queue;
use super::{Job, LoadError, Part, ledger};
use crate::columns::TableShape;

/// What a run has loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) rows: u64,
    pub(super) raw_bytes: u64,
    pub(super) chunks_before: usize,
}

/// Loads every chunk of the selection that is not there yet.
pub(super) async fn load(job: &Job<'_>) -> Result<Loaded, LoadError> {
    let mut parts = job.options.selection.parts(&job.opened.manifest)?;
    let before = ledger::loaded(job.pool).await.map_err(LoadError::at("read what is done"))?;
    let total: u64 = parts.iter().map(|part| part.chunk.raw_bytes).sum();
    let count = parts.len();
    parts.retain(|part| !before.contains(&ledger::Loaded::of(&part.chunk)));
    let left: u64 = parts.iter().map(|part| part.chunk.raw_bytes).sum();
    let chunks_before = count - parts.len();
    let (done, rows) = (AtomicU64::new(total - left), AtomicU64::new(0));
    let jobs = job.options.jobs.max(1);
    let queue = Queue::new(parts, jobs);
    let workers = (0..jobs).map(|worker| work(job, &queue, worker, (&done, &rows)));
    tokio::select! {
        worked = try_join_all(workers) => worked.map(|_| ())?,
        () = tell(job, &done, total) => {}
    }
    job.watch.progress(total, total, "bytes");
    Ok(Loaded { rows: rows.into_inner(), raw_bytes: done.into_inner() - (total - left), chunks_before })
}

/// Shows progress for ever.
pub(super) async fn tell(job: &Job<'_>, done: &AtomicU64, total: u64) {
    loop {
        job.watch.progress(done.load(Ordering::Relaxed), total, "bytes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Takes chunks until none is left; the next one is fetched while one is loaded.
async fn work(job: &Job<'_>, queue: &Queue, worker: usize, (done, rows): (&AtomicU64, &AtomicU64)) -> Result<(), LoadError> {
    let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
    let fetch_next = || async {
        match queue.next(worker) {
            Some(part) => Ok(Some(job.fetch(part).await?)),
            None => Ok::<_, LoadError>(None),
        }
    };
    let mut next = fetch_next().await?;
    while let Some(fetched) = next {
        let (loaded, fetched) = tokio::join!(load_one(job, &mut conn, fetched, done), fetch_next());
        rows.fetch_add(loaded?, Ordering::Relaxed);
        next = fetched?;
    }
    Ok(())
}

/// One chunk and its line in the ledger, in one transaction. Returns the rows loaded.
async fn load_one(job: &Job<'_>, conn: &mut PgConnection, fetched: Fetched, done: &AtomicU64) -> Result<u64, LoadError> {
    let at = || LoadError::at("commit a chunk");
    let shape = shape(job, &fetched.part)?;
    let mut tx = conn.begin().await.map_err(at())?;
    if !ledger::claim(&mut tx, &fetched.part.chunk, fetched.part.chunk.rows).await.map_err(at())? {
        done.fetch_add(fetched.part.chunk.raw_bytes, Ordering::Relaxed);
        return Ok(0);
    }
    let rows = copy(&mut tx, shape, fetched, Freeze::No, done).await?;
    tx.commit().await.map_err(at())?;
    Ok(rows)
}

/// The columns of a chunk's table.
pub(super) fn shape<'a>(job: &'a Job<'_>, part: &Part) -> Result<&'a TableShape, LoadError> {
    let shape = job.opened.manifest.shapes.iter().find(|shape| shape.name == part.chunk.table);
    shape.ok_or_else(|| LoadError::Chunk {
        chunk: part.chunk.file_name(),
        found: format!("the manifest does not describe table {}", part.chunk.table),
    })
}
