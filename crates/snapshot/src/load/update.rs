//! Brings a restored, unmodified database to a newer snapshot: only chunks that it lacks are fetched.
//!
//! The ledger says which chunks are there. Every range of heights in which it differs from the new manifest is replaced, all
//! three chain tables together (foreign keys tie them), in one transaction with its lines of the ledger: a kill leaves each range either
//! old or new, and the next run replaces the rest.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

use super::copy::{Freeze, copy};
use super::ledger::{Loaded, State};
use super::rows::{shape, tell};
use super::{Job, LoadError, Options, Outcome, Part, Selection, Steps, Watch, finish, ledger};
use crate::chunk::{Chunk, Heights};
use crate::columns::quote;
use crate::fetch::{Opened, Source};
use crate::manifest::{Manifest, Profile};
use crate::verify;

/// Chain tables, so that nobody is deleted before those who point at it.
const CHILDREN_FIRST: [(&str, &str); 3] = [("events", "block_height"), ("transactions", "block_height"), ("blocks", "height")];

/// What separates a database from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Snapshot that the database holds.
    pub from: String,
    /// Snapshot that is wanted.
    pub to: String,
    /// Ranges of heights that are replaced.
    pub ranges: Vec<Heights>,
    /// Chunks to fetch.
    pub chunks: usize,
    /// Their size, bytes.
    pub bytes: u64,
}

/// Updates the database behind `pool` to `opened`, or only says what that would take (`dry_run`).
///
/// # Errors
/// [`LoadError::NotUpdatable`] before anything is changed; others leave a database that the same command brings to its end.
pub async fn update(
    pool: &PgPool,
    source: &Source,
    opened: &Opened,
    options: &Options,
    (watch, dry_run): (&dyn Watch, bool),
) -> Result<(Difference, Option<Outcome>), LoadError> {
    let job = Job { pool, source, opened, options, watch };
    let mut steps = Steps::new(watch, vec!["check", "rows", "vacuum", "verify"]);
    steps.next();
    let _lock = ledger::lock(pool).await?;
    let from = job.updatable().await?;
    let before = ledger::loaded(pool).await.map_err(LoadError::at("read what is there"))?;
    let work = Work::between(&opened.manifest, &before);
    let difference = work.difference(from, &opened.manifest);
    if dry_run {
        return Ok((difference, None));
    }
    steps.next();
    let (rows, raw_bytes) = job.replace(&work).await?;
    steps.next();
    finish::vacuum(&job).await?;
    steps.next();
    let report = job.proof().await?;
    if report.proved() {
        ledger::end(pool).await?;
    }
    let chunks_before = opened.manifest.chunks.len() - difference.chunks;
    let outcome = Outcome {
        rows,
        raw_bytes,
        chunks_before,
        skipped_definitions: Vec::new(),
        settled: None,
        steps: steps.times(),
        report: Some(report),
    };
    Ok((difference, Some(outcome)))
}

/// What is to be replaced.
struct Work {
    ranges: Vec<(Heights, Vec<Chunk>)>,
    small: Vec<Chunk>,
}

impl Work {
    fn between(manifest: &Manifest, before: &HashSet<Loaded>) -> Self {
        let wanted: HashSet<Loaded> = manifest.chunks.iter().map(Loaded::of).collect();
        let heights = |loaded: &Loaded| {
            let ends = [loaded.from_height, loaded.to_height].map(u64::try_from);
            if let [Ok(from), Ok(to)] = ends { Some(Heights { from, to }) } else { None }
        };
        let mut dirty: Vec<Heights> = wanted.symmetric_difference(before).filter_map(heights).collect();
        let chunks = || manifest.chunks.iter().filter_map(|chunk| Some((chunk.heights?, chunk)));
        // A chunk of the new manifest is taken whole, so a range grows to the chunks that touch it.
        loop {
            dirty = joined(dirty);
            let touched =
                |range: &Heights| chunks().filter(|(own, _)| touch(*own, *range)).map(|(own, _)| own).collect::<Vec<_>>();
            let more: Vec<Heights> = dirty.iter().flat_map(touched).collect();
            let grown = joined(dirty.iter().copied().chain(more).collect());
            if grown == dirty {
                break;
            }
            dirty = grown;
        }
        let of = |range: Heights| chunks().filter(|(own, _)| touch(*own, range)).map(|(_, chunk)| chunk.clone()).collect();
        let ranges = dirty.into_iter().map(|range| (range, of(range))).collect();
        let small = manifest.chunks.iter().filter(|chunk| chunk.heights.is_none() && !before.contains(&Loaded::of(chunk)));
        Self { ranges, small: small.cloned().collect() }
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.ranges.iter().flat_map(|(_, chunks)| chunks).chain(&self.small)
    }

    fn difference(&self, from: String, to: &Manifest) -> Difference {
        Difference {
            from,
            to: to.path().to_string(),
            ranges: self.ranges.iter().map(|(range, _)| *range).collect(),
            chunks: self.chunks().count(),
            bytes: self.chunks().map(|chunk| chunk.bytes).sum(),
        }
    }
}

fn touch(a: Heights, b: Heights) -> bool {
    a.from <= b.to && b.from <= a.to
}

/// Ranges that overlap become one.
fn joined(mut ranges: Vec<Heights>) -> Vec<Heights> {
    ranges.sort_unstable();
    let mut out: Vec<Heights> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if touch(*last, range) => last.to = last.to.max(range.to),
            _ => out.push(range),
        }
    }
    out
}

impl Job<'_> {
    /// Refuses what is no unmodified restore of an older snapshot; returns what the database holds.
    async fn updatable(&self) -> Result<String, LoadError> {
        let no = |why: String| Err(LoadError::NotUpdatable(why));
        let held = ledger::held(self.pool).await.map_err(LoadError::at("read what the database holds"))?;
        let Some(held) = held else {
            return no(
                "it was not made by `snapshots restore`, so nobody knows which chunks it holds; restore into an empty one".into(),
            );
        };
        let new = &self.opened.manifest;
        let name = held.manifest.path().to_string();
        if held.state == State::Loading {
            return no(format!("its restore of {name} has not come to its end; run `snapshots restore` again"));
        }
        if !held.selection.is_all() {
            return no(format!("it holds only a part of {name}"));
        }
        if held.manifest.profile != Profile::Public {
            return no(format!(
                "it holds {name} of the {} profile, which is restored anew, never updated",
                held.manifest.profile
            ));
        }
        if held.manifest.network != new.network {
            return no(format!("it holds {name}, another network than {}", new.path()));
        }
        if held.manifest.sequence > new.sequence {
            return no(format!("it holds {name}, which is newer than {}", new.path()));
        }
        if held.manifest.shapes != new.shapes {
            return no(format!("{} has other columns than {name}; restore it into an empty database", new.path()));
        }
        if held.state == State::Complete {
            let report = verify::structure(self.pool, &held.manifest, &Selection::default()).await.map_err(LoadError::Verify)?;
            if let Some(wrong) = report.checks.iter().find(|check| !check.holds) {
                let found = wrong.found.as_deref().unwrap_or_default();
                return no(format!(
                    "it is not {name} any more: not so: {} ({found}); if an indexer writes to it, that keeps it up to date",
                    wrong.statement
                ));
            }
        }
        Ok(name)
    }

    async fn replace(&self, work: &Work) -> Result<(u64, u64), LoadError> {
        let at = || LoadError::at("begin the update");
        let mut conn = self.pool.acquire().await.map_err(at())?;
        ledger::begin_update(&mut conn, self.opened).await.map_err(at())?;
        let total = work.chunks().map(|chunk| chunk.raw_bytes).sum();
        let done = AtomicU64::new(0);
        let replacing = async {
            let mut rows = 0;
            for (range, chunks) in &work.ranges {
                rows += self.replace_range(&mut conn, *range, chunks, &done).await?;
            }
            for chunk in &work.small {
                rows += self.replace_small(&mut conn, chunk, &done).await?;
            }
            Ok::<u64, LoadError>(rows)
        };
        let rows = tokio::select! {
            rows = replacing => rows?,
            () = tell(self, &done, total) => 0,
        };
        self.watch.progress(total, total, "bytes");
        Ok((rows, total))
    }

    async fn replace_range(
        &self,
        conn: &mut PgConnection,
        range: Heights,
        chunks: &[Chunk],
        done: &AtomicU64,
    ) -> Result<u64, LoadError> {
        let at = || LoadError::at(format!("replace the blocks {range}"));
        let mut tx = conn.begin().await.map_err(at())?;
        for (table, column) in CHILDREN_FIRST {
            let sql = format!("delete from public.{} where {} between $1 and $2", quote(table), quote(column));
            let delete = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(range.from.cast_signed()).bind(range.to.cast_signed());
            delete.execute(&mut *tx).await.map_err(at())?;
            ledger::forget(&mut tx, table, Some((range.from, range.to))).await.map_err(at())?;
        }
        let mut rows = 0;
        // In load order: parents before children.
        for chunk in chunks {
            rows += self.load_chunk(&mut tx, chunk, done).await?;
        }
        tx.commit().await.map_err(at())?;
        Ok(rows)
    }

    async fn replace_small(&self, conn: &mut PgConnection, chunk: &Chunk, done: &AtomicU64) -> Result<u64, LoadError> {
        let at = || LoadError::at(format!("replace the rows of {}", chunk.table));
        let mut tx = conn.begin().await.map_err(at())?;
        let sql = format!("delete from public.{}", quote(&chunk.table));
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.map_err(at())?;
        ledger::forget(&mut tx, &chunk.table, None).await.map_err(at())?;
        let rows = self.load_chunk(&mut tx, chunk, done).await?;
        tx.commit().await.map_err(at())?;
        Ok(rows)
    }

    async fn load_chunk(&self, tx: &mut PgConnection, chunk: &Chunk, done: &AtomicU64) -> Result<u64, LoadError> {
        let fetched = self.fetch(Part { chunk: chunk.clone(), within: None }).await?;
        let shape = shape(self, &fetched.part)?;
        ledger::claim(tx, chunk, chunk.rows).await.map_err(LoadError::at("list a chunk"))?;
        copy(tx, shape, fetched, Freeze::No, done).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_are_one() {
        let range = |from, to| Heights { from, to };
        assert_eq!(joined(vec![range(7, 9), range(0, 3), range(9, 12), range(2, 5)]), [range(0, 5), range(7, 12)]);
    }
}
