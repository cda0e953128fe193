//! Brings a restored, unmodified database to a newer snapshot: only chunks that it lacks are fetched.
//!
//! The ledger says which chunks are there; `replace` brings those that are not. What the schema gained meanwhile is made first; what
//! it changed otherwise nobody can know how to change here, so that is refused.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::PgPool;

use super::copy::Room;
use super::definitions::kind_and_name;
use super::gained::Gained;
use super::ledger::{Held, Loaded, State};
use super::{Job, LoadError, Options, Outcome, Selection, Steps, Watch, finish, ledger, rows};
use crate::chunk::{Chunk, Heights};
use crate::fetch::{Opened, Source};
use crate::manifest::{Manifest, Profile};
use crate::verify;

/// What separates a database from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Snapshot that the database holds.
    pub from: String,
    /// Snapshot that is wanted.
    pub to: String,
    /// Ranges of heights that are new or rewritten.
    pub ranges: Vec<Heights>,
    /// What the schema gained, such as `TABLE invoices`.
    pub definitions: Vec<String>,
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
    let job = Job { pool, source, opened, options, watch, room: Room::new() };
    let mut steps = Steps::new(watch, vec!["check", "rows", "vacuum", "verify"]);
    steps.next();
    let _lock = ledger::lock(pool).await?;
    let held = job.updatable().await?;
    let gained = Gained::since(&job, &held).await?;
    let before = ledger::loaded(pool).await.map_err(LoadError::at("read what is there"))?;
    let work = Work::between(&opened.manifest, &before);
    let difference = work.difference(held.manifest.path().to_string(), &opened.manifest, &gained);
    if dry_run {
        return Ok((difference, None));
    }
    steps.next();
    gained.make(&job).await?;
    let (rows, raw_bytes) = job.replace(&work, &gained.object).await?;
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

/// What is to be done.
pub(super) struct Work {
    /// What is listed and not wanted: tables and heights whose rows are old.
    pub(super) stale: Vec<(String, Heights)>,
    /// Chunks of heights where anything is old, parents before children.
    pub(super) rewritten: Vec<Chunk>,
    /// Chunks of heights of which nothing is there, parents before children.
    pub(super) new: Vec<Chunk>,
    /// Chunks of tables without heights.
    pub(super) small: Vec<Chunk>,
}

impl Work {
    fn between(manifest: &Manifest, before: &HashSet<Loaded>) -> Self {
        let wanted: HashSet<Loaded> = manifest.chunks.iter().map(Loaded::of).collect();
        let stale: Vec<_> = before.difference(&wanted).filter_map(|old| Some((old.table_name.clone(), old.heights()?))).collect();
        let mut lacking: Vec<Chunk> =
            manifest.chunks.iter().filter(|chunk| !before.contains(&Loaded::of(chunk))).cloned().collect();
        lacking.sort_by_key(|chunk| rows::PARENTS_FIRST.iter().position(|(table, ..)| *table == chunk.table));
        let (lacking, small): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|chunk| chunk.heights.is_some());
        // Foreign keys tie the tables, whose chunks need not end at the same heights.
        let mut old = joined(stale.iter().map(|(_, heights)| *heights).collect());
        loop {
            let touched =
                lacking.iter().filter_map(|chunk| chunk.heights).filter(|own| old.iter().any(|range| touch(*own, *range)));
            let grown = joined(old.iter().copied().chain(touched).collect());
            if grown == old {
                break;
            }
            old = grown;
        }
        let is_old = |chunk: &Chunk| chunk.heights.is_some_and(|own| old.iter().any(|range| touch(own, *range)));
        let (rewritten, new) = lacking.into_iter().partition(is_old);
        Self { stale, rewritten, new, small }
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.rewritten.iter().chain(&self.new).chain(&self.small)
    }

    fn difference(&self, from: String, to: &Manifest, gained: &Gained) -> Difference {
        let stale = self.stale.iter().map(|(_, heights)| *heights);
        Difference {
            from,
            to: to.path().to_string(),
            ranges: joined(stale.chain(self.chunks().filter_map(|chunk| chunk.heights)).collect()),
            definitions: gained.entries.iter().map(kind_and_name).collect(),
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
    /// What the database holds; refuses what is no unmodified restore of an older snapshot.
    async fn updatable(&self) -> Result<Held, LoadError> {
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
        Ok(held)
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
