//! Where drills restore into: a private cluster that is thrown away, or databases on a server that the operator lends.

mod lent;
mod private;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::drill::Mode;
use snapshot::stock;
use workflows::scratch::{ScratchError, ScratchPlaces};

use crate::config::{Role, Servers, ServiceArgs};
use crate::embedded::data_dir::DataDir;
use crate::embedded::discover;
use crate::embedded::lock::DataDirLock;
use crate::embedded::postgres::Durability;
use crate::exit::{Exit, Failure};
use lent::LentServer;
use private::PrivateClusters;

/// What is known of the process's own servers.
pub(super) struct Known<'a> {
    /// The data directory.
    pub(super) dir: &'a Path,
    /// Major version of the server that is snapshotted.
    pub(super) major: u32,
    /// The `pg_restore` beside its `pg_dump`.
    pub(super) pg_restore: &'a Path,
    /// Whether the process's own data must survive it.
    pub(super) durability: Durability,
}

/// The place that settings and machine allow. A worker whose snapshots must be proved, and cannot be, does not start.
pub(super) fn places(
    args: &ServiceArgs,
    servers: &Servers,
    known: &Known<'_>,
) -> Result<Option<Arc<dyn ScratchPlaces>>, Failure> {
    if !args.has(Role::Worker) {
        return Ok(None);
    }
    let parent = args.drill.drill_dir.clone().unwrap_or_else(|| known.dir.join("drill"));
    let places = match &servers.drill_database_url {
        Some(url) => Ok(Arc::new(LentServer::new(url.clone(), parent)) as Arc<dyn ScratchPlaces>),
        None => private(args, known, parent),
    };
    let mode = args.drill.drill.mode();
    match places {
        Err(_) if mode == Mode::Off => Ok(None),
        Err(failure) => Err(failure),
        Ok(places) if mode == Mode::Full => stock_tools(known.pg_restore).map(|()| Some(places)),
        Ok(places) => Ok(Some(places)),
    }
}

fn private(args: &ServiceArgs, known: &Known<'_>, parent: PathBuf) -> Result<Arc<dyn ScratchPlaces>, Failure> {
    let nowhere = parent.join("none");
    let named = args.source.pg_bin.as_deref();
    // A directory with client programs alone was named for `pg_dump`.
    let found = discover::find(named, &nowhere).or_else(|_| discover::find(None, &nowhere));
    let wanted = known.major;
    let bin = found.map_err(|error| not_provable(Failure::caused(Exit::NotFound, CANNOT, error)))?;
    if bin.major < wanted {
        let what = format!("{CANNOT}: the server programs found are of version {}, the database of {wanted}", bin.major);
        return Err(not_provable(Failure::new(Exit::NotFound, what)));
    }
    Ok(Arc::new(PrivateClusters { parent, pg_bin: bin.dir, durability: known.durability }))
}

const CANNOT: &str = "snapshots cannot be proved by a restore before readers are sent to them";

fn stock_tools(pg_restore: &Path) -> Result<(), Failure> {
    let mut missing: Vec<String> = stock::missing_tools().into_iter().map(str::to_owned).collect();
    if !pg_restore.is_file() {
        missing.push(pg_restore.display().to_string());
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(not_provable(Failure::new(Exit::NotFound, format!("{CANNOT}: this machine misses {}", missing.join(", ")))))
}

fn not_provable(failure: Failure) -> Failure {
    failure.hint(
        "install the programs (apt-get install -y postgresql curl zstd), or lend a server with SNAPSHOTS_DRILL_DATABASE_URL; \
         --drill sample needs no stock tools, --drill off proves nothing",
    )
}

/// What is made for drills inside the directory that an operator names. Nothing else in that directory is looked at.
const FOLDER: &str = "snapshots-drill-scratch";

/// A directory of its own under `parent`, after those that killed processes left are gone; deleted with its holder.
fn directory(parent: &Path) -> Result<DataDir, ScratchError> {
    let parent = &parent.join(FOLDER);
    let cannot = |source: std::io::Error| ScratchError::place(format!("use {}", parent.display()), source);
    let place = |error| ScratchError::place(format!("make a directory in {}", parent.display()), error);
    std::fs::create_dir_all(parent).map_err(cannot)?;
    let entries = std::fs::read_dir(parent).map_err(cannot)?.filter_map(Result::ok);
    // One without a lock file is being made this moment.
    let made = |path: &PathBuf| DataDir::is_ephemeral_name(path) && DataDirLock::was_taken(path);
    for dir in entries.map(|entry| entry.path()).filter(made) {
        // Whoever works in it holds its lock.
        let Ok(lock) = DataDirLock::acquire(&dir) else { continue };
        tracing::warn!(path = %dir.display(), "taking away what a killed drill left");
        DataDir::take_away(&dir).map_err(cannot)?;
        drop(lock);
    }
    DataDir::ephemeral_in(parent).map_err(place)
}
