//! Proves that a database holds what a manifest says: the one verifier of demo, drills and `verify`.
//!
//! Each chunk's rows are read again in their order and digested; equal digests mean equal rows, byte for byte. Since the
//! digests in the manifest were taken from the source, a database that passes equals the source up to the height.

mod everything;
mod published;
mod structure;
mod whole;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use sqlx::PgPool;

pub use published::published;
pub use structure::structure;
pub use whole::whole;

use crate::chunk::Chunk;
use crate::columns::TableShape;
use crate::cut::{ReadThread, begin_export, digest_rows};
use crate::manifest::Manifest;

/// Which database is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A restored one: it must hold the snapshot and nothing above it.
    Restored,
    /// The one it was cut from, which goes on growing.
    Source,
}

/// One statement and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// For example `no row above height 2950`.
    pub statement: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was found, where it does not.
    pub found: Option<String>,
}

/// The outcome of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// All checks made.
    pub checks: Vec<Check>,
    /// Rows read and digested.
    pub rows: u64,
    /// Bytes of COPY text digested.
    pub raw_bytes: u64,
}

impl Report {
    /// True when every check holds.
    pub fn proved(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.holds)
    }

    /// Adds what another look found.
    pub fn append(&mut self, other: Self) {
        self.checks.extend(other.checks);
        self.rows += other.rows;
        self.raw_bytes += other.raw_bytes;
    }

    pub(crate) fn expect(&mut self, statement: String, found: Result<(), String>) {
        self.checks.push(Check { statement, holds: found.is_ok(), found: found.err() });
    }
}

/// Verifies a database against a manifest, reading every row, with `jobs` connections.
///
/// # Errors
/// The database's; what does not hold is in the report instead.
pub async fn database(pool: &PgPool, manifest: &Manifest, subject: Subject, jobs: usize) -> sqlx::Result<Report> {
    let mut report = Report::default();
    let chunks = manifest.chunks.iter().filter(|chunk| subject == Subject::Restored || chunk.heights.is_some());
    let thread = ReadThread::start(pool).map_err(sqlx::Error::Io)?;
    let jobs_of = stream::iter(chunks).map(|chunk| thread.run(|pool| compare(pool, shape(manifest, chunk), chunk.clone())));
    let compared = jobs_of.buffer_unordered(jobs.max(1)).try_collect::<Vec<_>>().await;
    // The database may be about to be renamed or dropped.
    thread.close().await;
    let compared = compared?;
    for table in &manifest.shapes {
        let mine = compared.iter().filter(|chunk| chunk.table == table.name);
        let (mut rows, mut bad, mut count) = (0, Vec::new(), 0);
        for chunk in mine {
            rows += chunk.rows;
            count += 1;
            report.raw_bytes += chunk.raw_bytes;
            bad.extend(chunk.difference.clone());
        }
        report.rows += rows;
        if count > 0 {
            let found = if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) };
            report.expect(format!("{rows} rows of {} equal the snapshot's {count} chunks", table.name), found);
        }
    }
    if subject == Subject::Restored {
        nothing_above(pool, manifest.block_height, &mut report).await?;
        rows_in_all(pool, manifest, &mut report).await?;
        progress_says(pool, manifest, manifest.block_height, &mut report).await?;
    }
    Ok(report)
}

struct Compared {
    table: String,
    rows: u64,
    raw_bytes: u64,
    difference: Option<String>,
}

fn shape(manifest: &Manifest, chunk: &Chunk) -> TableShape {
    let missing = || TableShape { name: chunk.table.clone(), schema: None, columns: vec![], order: vec![], height: None };
    manifest.shapes.iter().find(|shape| shape.name == chunk.table).cloned().unwrap_or_else(missing)
}

async fn compare(pool: PgPool, shape: TableShape, chunk: Chunk) -> sqlx::Result<Compared> {
    let mut conn = pool.acquire().await?;
    let mut tx = begin_export(&mut conn).await?;
    let digest = digest_rows(&mut tx, &shape, chunk.heights).await?;
    tx.rollback().await?;
    let equal = digest.content_sha256 == chunk.content_sha256;
    let difference = (!equal).then(|| {
        format!(
            "{}: {} rows with digest {} instead of {} rows with {}",
            chunk.file_name(),
            digest.rows,
            digest.content_sha256,
            chunk.rows,
            chunk.content_sha256
        )
    });
    Ok(Compared { table: chunk.table.clone(), rows: digest.rows, raw_bytes: digest.raw_bytes, difference })
}

async fn nothing_above(pool: &PgPool, height: u64, report: &mut Report) -> sqlx::Result<()> {
    let above: i64 = sqlx::query_scalar(
        "select (select count(*) from public.blocks where height > $1)
              + (select count(*) from public.transactions where block_height > $1)
              + (select count(*) from public.events where block_height > $1)",
    )
    .bind(height.cast_signed())
    .fetch_one(pool)
    .await?;
    let found = if above == 0 { Ok(()) } else { Err(format!("{above} rows above it")) };
    report.expect(format!("no row above height {height}"), found);
    Ok(())
}

async fn rows_in_all(pool: &PgPool, manifest: &Manifest, report: &mut Report) -> sqlx::Result<()> {
    let total: i64 = sqlx::query_scalar(
        "select (select count(*) from public.blocks) + (select count(*) from public.transactions) + (select count(*) from public.events)",
    )
    .fetch_one(pool)
    .await?;
    let expected: u64 = ["blocks", "transactions", "events"].iter().filter_map(|t| manifest.tables.get(*t)).map(|t| t.rows).sum();
    let found = if total.unsigned_abs() == expected { Ok(()) } else { Err(format!("{total} rows")) };
    report.expect(format!("{expected} rows in all"), found);
    Ok(())
}

async fn progress_says(pool: &PgPool, manifest: &Manifest, height: u64, report: &mut Report) -> sqlx::Result<()> {
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "select network, last_indexed_block, last_contiguous_block, highest_seen_block from public.index_progress order by 1",
    )
    .fetch_all(pool)
    .await?;
    let height = height.cast_signed();
    let expected = [(manifest.network.clone(), height, height, height)];
    let found = if rows == expected { Ok(()) } else { Err(format!("{rows:?}")) };
    report.expect(format!("index_progress says {height} for {} and nothing else", manifest.network), found);
    Ok(())
}
