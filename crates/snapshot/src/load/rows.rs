//! Rows: here a transaction per chunk, the way that resumes at any point and works on any server; `fast` has another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use sqlx::Connection;

use super::copy::{Fetched, Freeze, copy};
use super::indexes::{self, Index};
use super::worklist::{Rows, Work, Worklist};
use super::{Job, LoadError, Part, Steps, fast, ledger};
use crate::columns::TableShape;

/// Chain tables with their key and height, so that nobody is there before whom it points at.
pub(super) const PARENTS_FIRST: [(&str, &str, &str); 3] =
    [("blocks", "height", "height"), ("transactions", "tx_id", "block_height"), ("events", "id", "block_height")];

/// What a run has loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) rows: u64,
    pub(super) raw_bytes: u64,
    pub(super) chunks_before: usize,
}

/// What there is to do, and what has been done so far.
#[derive(Debug)]
pub(super) struct Progress {
    /// Of all chunks and all indexes.
    total: (u64, usize),
    pub(super) bytes: AtomicU64,
    pub(super) rows: AtomicU64,
}

/// Loads everything of the selection that is not there yet and builds the indexes. A connection that has nothing better to do
/// builds those of tables that are there, and nobody waits for the last row; the step *indexes* begins when that is there.
pub(super) async fn load(job: &Job<'_>, all: &[Index], steps: &mut Steps<'_>) -> Result<Loaded, LoadError> {
    let mut parts = job.options.selection.parts(&job.opened.manifest)?;
    let before = ledger::loaded(job.pool).await.map_err(LoadError::at("read what is done"))?;
    let total: u64 = parts.iter().map(|part| part.chunk.raw_bytes).sum();
    let count = parts.len();
    parts.retain(|part| !before.contains(&ledger::Loaded::of(&part.chunk)));
    let chunks_before = count - parts.len();
    let bytes_before = total - parts.iter().map(|part| part.chunk.raw_bytes).sum::<u64>();
    let progress = Progress { total: (total, all.len()), bytes: AtomicU64::new(bytes_before), rows: AtomicU64::new(0) };
    let left = indexes::left(job, all).await?;
    match job.options.fast {
        true => fast::tables(job, parts, left, &progress, steps).await?,
        false => chunks(job, parts, left, &progress, steps).await?,
    }
    let raw_bytes = progress.bytes.into_inner() - bytes_before;
    Ok(Loaded { rows: progress.rows.into_inner(), raw_bytes, chunks_before })
}

/// Shares rows and indexes among the connections, and tells of the work until it ends.
pub(super) async fn share<'a, R>(
    job: &Job<'_>,
    rows: Vec<Rows<R>>,
    left: VecDeque<&'a Index>,
    progress: &Progress,
    steps: &mut Steps<'_>,
    work: impl AsyncFn(&Worklist<'a, R>, usize) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let jobs = job.options.jobs.max(1);
    let list = Worklist::new(jobs, rows, left);
    let working = try_join_all((0..jobs).map(|worker| work(&list, worker)));
    let (bytes, indexes) = progress.total;
    let telling = async {
        tokio::select! {
            () = list.rows_are_there() => {}
            () = tell(job, &progress.bytes, bytes) => {}
        }
        job.watch.progress(bytes, bytes, "bytes");
        steps.next();
        let mut left = usize::MAX;
        while left > 0 {
            left = list.fewer_indexes(left).await;
            job.watch.progress((indexes - left) as u64, indexes as u64, "indexes");
        }
        Ok(())
    };
    tokio::try_join!(working, telling).map(|_| ())
}

/// Shows progress for ever.
pub(super) async fn tell(job: &Job<'_>, done: &AtomicU64, total: u64) {
    loop {
        job.watch.progress(done.load(Ordering::Relaxed), total, "bytes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn chunks(
    job: &Job<'_>,
    parts: Vec<Part>,
    left: VecDeque<&Index>,
    progress: &Progress,
    steps: &mut Steps<'_>,
) -> Result<(), LoadError> {
    let rows = |part: Part| Rows { table: part.chunk.table.clone(), bytes: part.chunk.raw_bytes, rows: part };
    let parts = parts.into_iter().map(rows).collect();
    share(job, parts, left, progress, steps, async |list, worker| work(job, list, worker, progress).await).await
}

/// Takes what there is until all is done; the next chunk is fetched while one is loaded.
async fn work(job: &Job<'_>, list: &Worklist<'_, Part>, worker: usize, progress: &Progress) -> Result<(), LoadError> {
    let take = || async {
        Ok::<_, LoadError>(match list.next(worker).await {
            Some(Work::Rows(part)) => Some(Work::Rows(job.fetch(part).await?)),
            Some(Work::Index(index)) => Some(Work::Index(index)),
            None => None,
        })
    };
    let mut next = take().await?;
    while let Some(work) = next {
        next = match work {
            Work::Index(index) => {
                index.build(job).await?;
                list.built(index);
                take().await?
            }
            Work::Rows(fetched) => {
                let load = async {
                    let table = fetched.part.chunk.table.clone();
                    let rows = load_one(job, fetched, &progress.bytes).await?;
                    progress.rows.fetch_add(rows, Ordering::Relaxed);
                    list.loaded(&table);
                    Ok(())
                };
                tokio::try_join!(load, take())?.1
            }
        };
    }
    Ok(())
}

/// One chunk and its line in the ledger, in one transaction. Returns the rows loaded.
async fn load_one(job: &Job<'_>, fetched: Fetched, done: &AtomicU64) -> Result<u64, LoadError> {
    let at = || LoadError::at("commit a chunk");
    let shape = shape(job, &fetched.part)?;
    // Anew for each: one that was idle while the others worked may be gone, and the pool sees that.
    let mut conn = job.pool.acquire().await.map_err(at())?;
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
