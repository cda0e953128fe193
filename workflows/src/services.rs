//! What the steps of all workflows need from the process that runs them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use snapshot::columns::ColumnRules;
use snapshot::cut::ReadThread;
use snapshot::drill;
use snapshot::encrypt::Recipients;
use snapshot::manifest::Archive;
use snapshot::masking::Rules;
use snapshot::sign::Keyring;
use snapshot::store::Store;
use sqlx::PgPool;

use crate::notify::Receivers;
use crate::prune::Keep;
use crate::scratch::ScratchPlaces;

/// Handles and settings, made once at start.
#[derive(Clone)]
pub struct Services {
    /// The indexed database: the chain is read from it.
    pub indexed: PgPool,
    /// Rows of it are read in bulk on this thread.
    pub reading: ReadThread,
    /// Its URL, for stock `pg_dump`. Holds a password: never log it.
    pub indexed_url: String,
    /// The control database: our schema `snapshots`.
    pub control: PgPool,
    /// All runs, for workflows that are about runs.
    pub runs: engine::Client,
    /// The bucket.
    pub store: Store,
    /// Where the `full` profile goes; `None`: it is not cut.
    pub full: Option<FullProfile>,
    /// The staging database; `None`: there is none to refresh.
    pub staging: Option<Staging>,
    /// The stock `pg_dump` to read the schema with.
    pub pg_dump: PathBuf,
    /// The stock `pg_restore`, for restore drills.
    pub pg_restore: PathBuf,
    /// Where drills restore into; `None`: this process has no such place.
    pub scratch: Option<Arc<dyn ScratchPlaces>>,
    /// What signs; `None`: snapshots are published unsigned.
    pub signing: Option<Keyring>,
    /// What to snapshot and how it is published.
    pub settings: Settings,
}

/// Where the `full` profile goes and who can read it. The identities are nowhere near a service.
#[derive(Debug, Clone)]
pub struct FullProfile {
    /// A bucket of its own, which nobody else may read.
    pub store: Store,
    /// Who can read it.
    pub recipients: Recipients,
}

/// The staging database that a refresh replaces.
#[derive(Clone)]
pub struct Staging {
    /// Its URL. Holds a password: never log it.
    pub url: url::Url,
    /// Which tenants' rows may be in it.
    pub rules: Rules,
}

/// Settings of the snapshot workflow.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Network to snapshot; `None`: the only one that `index_progress` knows.
    pub network: Option<String>,
    /// Bitcoin blocks that the highest block of a snapshot must lie deep.
    pub confirmations: u32,
    /// What to do with columns this program does not know.
    pub columns: ColumnRules,
    /// Which archives are stored.
    pub archive: ArchiveMode,
    /// What a snapshot must pass before it is promoted.
    pub drill: drill::Mode,
    /// How many snapshots are kept.
    pub keep: Keep,
    /// How long what nobody needs any more stays in the bucket: longer than the longest download.
    pub prune_grace: Duration,
    /// Age from which the newest snapshot is lagging, and from which it is stale.
    pub lagging_after: Duration,
    /// See `lagging_after`.
    pub stale_after: Duration,
    /// How long a snapshot may be believed to be the newest.
    pub latest_valid: Duration,
    /// Who hears of alarms.
    pub receivers: Receivers,
    /// Where the bucket can be read by anyone, without a trailing slash: `url` in manifests begins with it.
    pub public_base_url: String,
    /// Where this service can be read by anyone, without a trailing slash: it makes the archives that are not stored.
    pub service_base_url: String,
}

impl Settings {
    /// Where the archive of a snapshot can be read.
    #[must_use]
    pub fn archive_base_url(&self, archive: Archive) -> &str {
        match archive {
            Archive::Stored => &self.public_base_url,
            Archive::OnRequest => &self.service_base_url,
        }
    }
}

/// Which archives are stored. The others are spliced from chunks by the service, for whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveMode {
    /// Each snapshot's.
    Every,
    /// That of the first snapshot of each ISO week (from Monday, UTC).
    Weekly,
    /// None.
    OnRequest,
}
