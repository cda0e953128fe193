//! Brings a published snapshot into an empty database, without this service: check → tables → rows → indexes → foreign keys → progress
//! → statistics → proof.
//!
//! Rows come by COPY from chunks that were checked against the signed manifest before they are decoded; definitions come from the
//! schema object that the manifest names by digest. No other SQL is run. Invariant: a chunk's rows and its line in the ledger
//! (schema `snapshots_restore`, beside the data) commit together, and so do a definition and its line; whoever runs the same
//! restore again goes on where the ledger says, exactly once, whatever was killed when.

mod assess;
mod binary;
mod copy;
mod decode;
mod definitions;
mod error;
mod fast;
mod finish;
mod gained;
mod indexes;
mod ledger;
mod replace;
mod rows;
mod selection;
mod session;
mod settle;
mod update;
mod worklist;

use std::path::Path;

use serde::Serialize;
use sqlx::PgPool;

pub use assess::{Assessment, Needs, assess};
pub use error::{LoadError, Refusal};
pub(crate) use ledger::removed;
pub use ledger::{Held, State, held};
pub use selection::{Part, Selection};
pub use session::connect;
pub use settle::Settled;
pub use update::{Difference, update};

use crate::chunk::Heights;
use crate::fetch::{Opened, Source};
use crate::manifest::{Manifest, Profile};
use crate::verify::{self, Report, Subject};
use definitions::Definitions;

/// How a restore is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections that work at once.
    pub jobs: usize,
    /// What of the snapshot.
    pub selection: Selection,
    /// One transaction per table, rows frozen as they are written: less work and, where `wal_level` is minimal, next to no WAL.
    /// A table that was interrupted begins anew.
    pub fast: bool,
    /// Read and digest every chunk before the first row, not only its own chunk's digest before each row.
    pub check_first: bool,
    /// Vacuum and analyze at the end.
    pub vacuum: bool,
    /// Check the chain at the end.
    pub verify: bool,
    /// Read all rows again and compare their digests with the manifest.
    pub deep: bool,
    /// Free disk of the server, bytes, where the caller knows it.
    pub free_disk: Option<u64>,
    /// Asks the file system of this machine; used where the server runs on it and says where its data is.
    pub free_at: fn(&Path) -> Option<u64>,
}

impl Options {
    /// The rows of a table without heights have no order, so they are loaded whole, and their digests say nothing about a table.
    fn check(&self, manifest: &Manifest) -> Result<(), LoadError> {
        if manifest.profile == Profile::Full && (self.deep || self.selection.heights.is_some()) {
            let why = "a snapshot of the full profile is not cut by heights: restore it without --heights and --deep";
            return Err(LoadError::Selection(why.into()));
        }
        Ok(())
    }
}

/// Follows a restore.
pub trait Watch: Send + Sync {
    /// Step `number` of `of` begins.
    fn step(&self, number: usize, of: usize, name: &str);
    /// So far, of so much (0: not known), of what.
    fn progress(&self, done: u64, total: u64, unit: &'static str);
    /// Something to know.
    fn note(&self, text: &str);
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Rows loaded by this run; what an earlier run had loaded is not among them.
    pub rows: u64,
    /// Bytes of COPY text loaded by this run.
    pub raw_bytes: u64,
    /// Chunks that an earlier run had loaded.
    pub chunks_before: usize,
    /// Foreign keys left out, because a table that they need is not part of the selection; or left unvalidated, because a row is not.
    pub skipped_definitions: Vec<String>,
    /// What of the tenants' work under way was put right; `None` where there is none in the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// Seconds of each step.
    pub steps: Vec<StepTime>,
    /// What was checked at the end; `None` if nothing was.
    pub report: Option<Report>,
}

/// A step and how long it took.
#[derive(Debug, Clone, Serialize)]
pub struct StepTime {
    /// Its name.
    pub name: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// Everything a step needs.
struct Job<'a> {
    pool: &'a PgPool,
    source: &'a Source,
    opened: &'a Opened,
    options: &'a Options,
    watch: &'a dyn Watch,
    room: copy::Room,
}

/// Numbers, announces and times the steps.
struct Steps<'a> {
    watch: &'a dyn Watch,
    names: Vec<&'static str>,
    begun: Option<(usize, std::time::Instant)>,
    done: Vec<StepTime>,
}

impl<'a> Steps<'a> {
    fn new(watch: &'a dyn Watch, names: Vec<&'static str>) -> Self {
        Self { watch, names, begun: None, done: Vec::new() }
    }

    /// The next step begins, and with it the one before ends.
    fn next(&mut self) {
        let number = self.begun.map_or(0, |(number, _)| number + 1);
        self.end();
        if let Some(name) = self.names.get(number) {
            self.watch.step(number + 1, self.names.len(), name);
            self.begun = Some((number, std::time::Instant::now()));
        }
    }

    fn end(&mut self) {
        let Some((number, begun)) = self.begun else { return };
        self.done.push(StepTime { name: self.names[number], seconds: begun.elapsed().as_secs_f64() });
    }

    fn times(mut self) -> Vec<StepTime> {
        self.end();
        self.done
    }
}

/// Restores a snapshot into the database behind `pool` (see [`connect`]), or goes on with a restore that was interrupted.
///
/// # Errors
/// [`LoadError`]; a refusal leaves the database untouched, anything later leaves it resumable.
pub async fn restore(
    pool: &PgPool,
    source: &Source,
    opened: &Opened,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Outcome, LoadError> {
    let job = Job { pool, source, opened, options, watch, room: copy::Room::new() };
    // A copy of a whole database says where it stood; what was under way in it is put right instead.
    let last = if opened.manifest.profile.is_public() { "progress" } else { "settle" };
    let mut names = vec!["check", "tables", "rows", "indexes", "foreign keys", last];
    names.extend(options.vacuum.then_some("vacuum"));
    names.extend(options.verify.then_some("verify"));
    let mut steps = Steps::new(watch, names);
    steps.next();
    options.check(&opened.manifest)?;
    let _lock = ledger::lock(pool).await?;
    let definitions = Definitions::fetch(source, &opened.manifest).await?;
    let mut refusals = assess(pool, opened, options).await?.refusals;
    refusals.extend(definitions.refused_extensions(pool).await?);
    if !refusals.is_empty() {
        return Err(LoadError::Refused(refusals));
    }
    job.objects_are_there().await?;
    steps.next();
    ledger::begin(pool, opened, &options.selection, &definitions.object).await?;
    definitions.create_tables(&job).await?;
    steps.next();
    let loaded = rows::load(&job, definitions.indexes(), &mut steps).await?;
    indexes::add_keys(&job, definitions.indexes()).await?;
    steps.next();
    let skipped_definitions = definitions.create_foreign_keys(&job).await?;
    steps.next();
    let settled = match opened.manifest.profile {
        Profile::Public => finish::progress(&job).await.map(|()| None)?,
        Profile::Full => Some(settle::run(&job).await?),
    };
    if options.vacuum {
        steps.next();
        finish::vacuum(&job).await?;
    }
    let mut report = None;
    if options.verify {
        steps.next();
        report = Some(job.proof().await?);
    }
    if report.as_ref().is_none_or(Report::proved) {
        ledger::end(pool).await?;
    }
    let (rows, raw_bytes, chunks_before) = (loaded.rows, loaded.raw_bytes, loaded.chunks_before);
    Ok(Outcome { rows, raw_bytes, chunks_before, skipped_definitions, settled, steps: steps.times(), report })
}

/// Asks for every object that a restore would still need, without fetching more of them than the schema (with `check_first`, all).
/// Returns what the server cannot make of the schema: with [`assess`], all that [`restore`] looks at before it begins.
///
/// # Errors
/// [`LoadError::Fetch`], [`LoadError::Schema`]: the first object that is missing, of another size, or cannot be asked for.
pub async fn look_ahead(
    pool: &PgPool,
    source: &Source,
    opened: &Opened,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Vec<Refusal>, LoadError> {
    let definitions = Definitions::fetch(source, &opened.manifest).await?;
    Job { pool, source, opened, options, watch, room: copy::Room::new() }.objects_are_there().await?;
    definitions.refused_extensions(pool).await
}

impl Job<'_> {
    /// Whether heights of the snapshot are left out: by choice, or because the manifest is that of a sample.
    fn is_part(&self) -> bool {
        let manifest = &self.opened.manifest;
        let blocks = || manifest.chunks.iter().filter(|chunk| chunk.table == "blocks").filter_map(|chunk| chunk.heights);
        let lacks = |range: Heights| !blocks().any(|own| own.from <= range.to && range.from <= own.to);
        self.options.selection.heights.is_some() || manifest.ranges.iter().any(|range| lacks(range.heights))
    }

    async fn proof(&self) -> Result<Report, LoadError> {
        let manifest = &self.opened.manifest;
        let mut report = verify::structure(self.pool, manifest, &self.options.selection).await.map_err(LoadError::Verify)?;
        if self.options.deep {
            let deep = verify::database(self.pool, manifest, Subject::Restored, self.options.jobs).await;
            report.append(deep.map_err(LoadError::Verify)?);
        }
        Ok(report)
    }
}
