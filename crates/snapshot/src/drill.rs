//! What a restore drill found about a snapshot: the object `drill.json` beside it, and the summary in the pointer.
//!
//! Not the drill itself: it takes a scratch database, and is a step of a workflow. Invariant: `proved` is true only where every
//! path that was walked ended in a database that holds what the manifest says.
//!
//! `drill.json` is replaced by the next drill of the same snapshot, its signature with it; whoever meets an old signature beside a
//! new record fetches both once more.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::chunk::Heights;
use crate::manifest::{Manifest, totals};
use crate::verify::Report;

/// Version of the format this program writes.
pub const VERSION: u32 = 1;
/// A sample is one range in so many, and the newest.
const SAMPLE_ONE_IN: usize = 10;

/// How much of a snapshot a drill restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All of it, by stock tools and by our own restore.
    Full,
    /// The schema, the small tables, a tenth of the ranges of heights drawn by chance, and the newest; by our own restore.
    Sample,
    /// Nothing: a snapshot is promoted unproved.
    Off,
}

impl Mode {
    /// As it is written in settings and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Sample => "sample",
            Self::Off => "off",
        }
    }
}

/// By what a snapshot was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// curl, sha256sum, tar and pg_restore.
    Stock,
    /// `snapshots restore`.
    Own,
}

/// The content of `drill.json`: JSON, snake case, times in RFC 3339 and UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format version, 1.
    pub version: u32,
    /// For example `mainnet`.
    pub network: String,
    /// The snapshot.
    pub snapshot_id: String,
    /// Its number.
    pub sequence: u64,
    /// sha256 (hex) of the manifest that was proved.
    pub manifest_sha256: String,
    /// How much was restored.
    pub mode: Mode,
    /// Whether every path that was walked ended as it should, and nothing stands against the snapshot.
    pub proved: bool,
    /// What did not hold, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What an earlier drill found and this one, a sample that passed, could not have: it stands until a full drill passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Disproof>,
    /// When the drill began.
    pub begun_at: String,
    /// When it ended.
    pub ended_at: String,
    /// Age of the snapshot at that moment, seconds.
    pub age_seconds: u64,
    /// Where it was restored from.
    pub from: String,
    /// Chunks restored by our own path.
    pub chunks: u64,
    /// Chunks of the snapshot.
    pub chunks_of: u64,
    /// Size of the archive in bytes.
    pub archive_bytes: u64,
    /// Size of the extracted archive in bytes.
    pub raw_bytes: u64,
    /// Version of the scratch server, for example `15.18`.
    pub postgres: String,
    /// Version of this program.
    pub program: String,
    /// The paths that were walked.
    pub paths: Vec<Path>,
}

/// A drill that disproved a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disproof {
    /// When it ended.
    pub at: String,
    /// How much it had restored.
    pub mode: Mode,
    /// What did not hold.
    pub problem: String,
}

/// One path from what is published to a database, and its proof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// By what.
    pub way: Way,
    /// Whether the database holds what the manifest says.
    pub proved: bool,
    /// Seconds from the first byte fetched to a database that can be used: the recovery time, proof not included.
    pub rto_seconds: f64,
    /// Seconds of the proof.
    pub verify_seconds: f64,
    /// Bytes fetched.
    pub fetched_bytes: u64,
    /// Size of the restored database in bytes.
    pub database_bytes: u64,
    /// Rows that were read again and digested.
    pub rows: u64,
    /// Statements that were checked.
    pub checks: u64,
    /// Those that do not hold, with what was found.
    pub failed: Vec<String>,
    /// Seconds of each step.
    pub steps: Vec<Step>,
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, or the command line.
    pub name: String,
    /// Seconds it took.
    pub seconds: f64,
}

impl Step {
    /// A step, its time to the millisecond.
    pub fn new(name: impl Into<String>, seconds: f64) -> Self {
        Self { name: name.into(), seconds: to_milliseconds(seconds) }
    }
}

/// Seconds to the millisecond, so that a number survives being read and written again.
#[must_use]
pub fn to_milliseconds(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

impl Path {
    /// A path that led to a database, and what was found in it.
    #[must_use]
    pub fn proven_by(way: Way, report: &Report, verify_seconds: f64, steps: Vec<Step>) -> Self {
        let failed = report.checks.iter().filter(|check| !check.holds);
        let said = |check: &crate::verify::Check| match &check.found {
            Some(found) => format!("{}: {found}", check.statement),
            None => check.statement.clone(),
        };
        Self {
            way,
            proved: report.proved(),
            rto_seconds: to_milliseconds(steps.iter().map(|step| step.seconds).sum()),
            verify_seconds: to_milliseconds(verify_seconds),
            fetched_bytes: 0,
            database_bytes: 0,
            rows: report.rows,
            checks: report.checks.len() as u64,
            failed: failed.map(said).collect(),
            steps,
        }
    }

    /// A path on which what is published could not be made a database.
    #[must_use]
    pub fn broken(way: Way, why: String, steps: Vec<Step>) -> Self {
        let nothing = Self::proven_by(way, &Report::default(), 0.0, steps);
        Self { failed: vec![why], ..nothing }
    }
}

impl Record {
    /// The bytes that are published and signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings and finite numbers cannot fail to serialise.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Recovery time by a path in whole seconds, rounded up; `None` where it was not walked, or only a part was restored.
    #[must_use]
    pub fn rto_seconds(&self, way: Way) -> Option<u64> {
        let path = self.paths.iter().find(|path| path.way == way && path.proved && self.mode == Mode::Full)?;
        Some(path.rto_seconds.ceil() as u64)
    }

    /// This record, in view of what the drill before it found. A sample sees a part, so one that passes does not clear what another
    /// drill of the same manifest has found: only a full one does.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        let same = |before: &&Self| !before.proved && before.manifest_sha256 == self.manifest_sha256;
        let Some(before) = before.filter(same).filter(|_| self.proved && self.mode != Mode::Full) else { return self };
        let found =
            || Disproof { at: before.ended_at.clone(), mode: before.mode, problem: before.problem.clone().unwrap_or_default() };
        let standing = before.standing.clone().unwrap_or_else(found);
        let (mode, at) = (standing.mode.as_str(), &standing.at);
        self.proved = false;
        self.problem = Some(format!(
            "this sample found nothing wrong, but a {mode} drill at {at} did, and only a full drill can clear that: {}",
            standing.problem
        ));
        self.standing = Some(standing);
        self
    }

    /// What a pointer says of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            mode: self.mode,
            at: Some(self.ended_at.clone()),
            age_seconds: Some(self.age_seconds),
            stock_rto_seconds: self.rto_seconds(Way::Stock),
            own_rto_seconds: self.rto_seconds(Way::Own),
        }
    }
}

/// What `latest.json` says of the drill that its snapshot passed before it was promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How much was restored; [`Mode::Off`]: nothing, so the snapshot is unproved.
    pub mode: Mode,
    /// When it was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Age of the snapshot at that moment, seconds: how old the data is that a restore would bring back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Seconds from the first byte to a database, by stock tools; rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock_rto_seconds: Option<u64>,
    /// The same by `snapshots restore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_rto_seconds: Option<u64>,
}

impl Summary {
    /// No drill was made.
    #[must_use]
    pub fn off() -> Self {
        Self { mode: Mode::Off, at: None, age_seconds: None, stock_rto_seconds: None, own_rto_seconds: None }
    }
}

/// A time as records say it.
#[must_use]
pub fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The part of a snapshot that a sample restores, as a manifest of its own: small tables, a tenth of the ranges drawn by `seed`
/// (rounded up), and the newest. Whole ranges, so that foreign keys hold.
#[must_use]
pub fn sample(manifest: &Manifest, seed: &[u8]) -> Manifest {
    let ranges: Vec<Heights> = manifest.ranges.iter().map(|range| range.heights).collect();
    let drawn = draw(&ranges, seed);
    let inside = |heights: Heights| drawn.iter().any(|range| range.from <= heights.from && heights.to <= range.to);
    let mut part = manifest.clone();
    // A manifest of an older program does not say its ranges: then nothing can be left out.
    part.chunks.retain(|chunk| ranges.is_empty() || chunk.heights.is_none_or(inside));
    let rows = totals(&part.chunks);
    for (table, total) in &mut part.tables {
        *total = rows.get(table).copied().unwrap_or_default();
    }
    part
}

fn draw(ranges: &[Heights], seed: &[u8]) -> Vec<Heights> {
    let mut drawn = ranges.to_vec();
    drawn.sort_by_cached_key(|range| Sha256::new().chain_update(seed).chain_update(range.from.to_be_bytes()).finalize());
    drawn.truncate(ranges.len().div_ceil(SAMPLE_ONE_IN));
    drawn.extend(ranges.last());
    drawn.sort();
    drawn.dedup();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_tenth_and_the_newest_and_another_seed_draws_others() {
        let ranges: Vec<Heights> = (0..100).map(|n| Heights { from: n * 5_000, to: n * 5_000 + 4_999 }).collect();
        let drawn = draw(&ranges, b"a");
        assert!((10..=11).contains(&drawn.len()) && drawn.last() == ranges.last(), "{drawn:?}");
        assert_ne!(drawn, draw(&ranges, b"b"));
        assert_eq!(draw(&ranges[..1], b"a"), ranges[..1]);
        assert!(draw(&[], b"a").is_empty());
    }

    fn record(mode: Mode) -> Record {
        let report = Report { checks: vec![], rows: 0, raw_bytes: 0 };
        let mut path = Path::proven_by(Way::Own, &report, 0.1, vec![Step::new("rows", 1.20049), Step::new("indexes", 0.1)]);
        path.proved = true;
        Record {
            version: VERSION,
            network: "mainnet".into(),
            snapshot_id: "2026-02-05".into(),
            sequence: 1,
            manifest_sha256: String::new(),
            mode,
            proved: true,
            problem: None,
            standing: None,
            begun_at: String::new(),
            ended_at: "2026-02-05T02:10:00Z".into(),
            age_seconds: 600,
            from: String::new(),
            chunks: 1,
            chunks_of: 1,
            archive_bytes: 0,
            raw_bytes: 0,
            postgres: "15.18".into(),
            program: String::new(),
            paths: vec![path],
        }
    }

    #[test]
    fn only_a_full_drill_tells_a_recovery_time() {
        let full = record(Mode::Full);
        assert_eq!(full.paths[0].rto_seconds, 1.3);
        assert_eq!((full.rto_seconds(Way::Own), full.rto_seconds(Way::Stock)), (Some(2), None));
        let summary = record(Mode::Sample).summary();
        assert_eq!((summary.own_rto_seconds, summary.age_seconds), (None, Some(600)), "but the age of what it proved");
        assert_eq!(serde_json::from_slice::<Record>(&full.to_bytes()).unwrap(), full);
    }

    #[test]
    fn a_sample_that_passes_does_not_clear_what_another_drill_found_and_a_full_one_does() {
        let passed = |mode| record(mode);
        let mut failed = record(Mode::Full);
        (failed.proved, failed.problem) = (false, Some("row 7 differs".into()));
        assert!(passed(Mode::Sample).after(None).proved && passed(Mode::Sample).after(Some(&passed(Mode::Sample))).proved);
        let sampled = passed(Mode::Sample).after(Some(&failed));
        let found = sampled.standing.clone().unwrap();
        assert_eq!((sampled.proved, found.mode, found.problem.as_str()), (false, Mode::Full, "row 7 differs"));
        assert!(sampled.problem.as_ref().unwrap().ends_with("row 7 differs"));
        let again = passed(Mode::Sample).after(Some(&sampled));
        assert_eq!(again, sampled, "however often, and told once");
        let full = passed(Mode::Full).after(Some(&again));
        assert!(full.proved && full.problem.is_none() && full.standing.is_none());
        let another = Record { manifest_sha256: "b".into(), ..passed(Mode::Sample) };
        assert!(another.after(Some(&failed)).proved, "of another manifest");
        assert_eq!(failed.clone().after(Some(&sampled)), failed, "what a drill found itself stands for itself");
    }

    #[test]
    fn a_database_in_which_nothing_was_checked_is_not_proved() {
        assert!(!Path::proven_by(Way::Stock, &Report::default(), 0.0, vec![]).proved);
        let broken = Path::broken(Way::Stock, "tar failed".into(), vec![]);
        assert!(!broken.proved && broken.failed == ["tar failed"]);
    }
}
