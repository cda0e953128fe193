//! How fresh the newest snapshot is, in one word and in figures: `<network>/status.json` in the bucket, and `GET /status`.
//!
//! Judged is what `latest` points at, never what is being cut; and its age is that of the newest snapshot that a restore has proved,
//! unless `latest` was promoted with drills switched off, which is then said. The object says when it was written and which ages mean what, so
//! that a reader sees a service that stopped writing as well.

mod drills;
mod figures;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use engine::{Ctx, Queue, StartRun, StepError, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use snapshot::key::Key;
use snapshot::manifest::Pointer;
use snapshot::store::StoreError;

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};
use crate::step_error::Classify;

pub use drills::{DrillFigures, LastDrill, ProvedSnapshot};
pub use figures::{ChainFigures, FullState, Gap, LastRun};
pub(crate) use figures::{audit_problem, changed_ranges};

/// Name of the workflow in the ledger.
pub const NAME: &str = "status";

/// One word about a network's snapshots; the worst that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The newest run that looked at the chain refused it, scrubbing found history that differs from what was published, or a published
    /// snapshot did not restore to what its manifest says.
    FailedAudit,
    /// The indexed chain has gaps, so the next snapshot will be refused.
    Gap,
    /// The newest proved snapshot is far too old, or there is none.
    Stale,
    /// The newest proved snapshot is older than it should be.
    Lagging,
    /// All is well.
    Fresh,
}

/// The newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Newest {
    /// Its id.
    pub id: String,
    /// Its number.
    pub sequence: u64,
    /// Its highest block.
    pub block_height: u64,
    /// When it was cut.
    pub created_at: DateTime<Utc>,
    /// Its age.
    pub age_seconds: u64,
    /// Blocks of the indexed chain above it.
    pub blocks_behind: u64,
}

/// The state of a network's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    /// Format version, 1.
    pub version: u32,
    /// For example `mainnet`.
    pub network: String,
    /// When this was found.
    pub at: DateTime<Utc>,
    /// In one word.
    pub state: State,
    /// What `latest` points at.
    pub snapshot: Option<Newest>,
    /// What restores have proved.
    pub drill: DrillFigures,
    /// The indexed chain.
    pub chain: ChainFigures,
    /// Why the newest run that looked at the chain refused it, if it did.
    pub audit_problem: Option<String>,
    /// Ranges of published history that differ from the database or the bucket, and wait for the next snapshot.
    pub changed_ranges: u64,
    /// The last run of the snapshot workflow; not for everybody, so not in the bucket.
    pub last_run: Option<LastRun>,
    /// The newest snapshot of the `full` profile; not for everybody, so not in the bucket. Absent where none was ever cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullState>,
    /// Age from which a snapshot is called lagging.
    pub lagging_after_seconds: u64,
    /// Age from which it is called stale.
    pub stale_after_seconds: u64,
}

impl Freshness {
    /// What everybody may read: no row of our ledger.
    #[must_use]
    pub fn public(self) -> Self {
        Self { last_run: None, full: None, ..self }
    }
}

/// Why the state cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// A database's answer.
    #[error("a database does not answer")]
    Database(#[from] sqlx::Error),
    /// The bucket's answer.
    #[error("the bucket does not answer")]
    Bucket(#[from] StoreError),
    /// The pointer is not one.
    #[error("`latest` cannot be read")]
    Pointer(#[from] serde_json::Error),
    /// The pointer names no time: of no age at all is not what it would mean.
    #[error("`latest` does not say when its snapshot was cut")]
    Time(#[from] chrono::ParseError),
}

impl Classify for StatusError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Database(error) => error.is_retryable(),
            Self::Bucket(error) => error.is_retryable(),
            Self::Pointer(_) | Self::Time(_) => false,
        }
    }
}

/// Finds the state of a network.
///
/// # Errors
/// [`StatusError`].
pub async fn find(services: &Services, network: &str) -> Result<Freshness, StatusError> {
    let pointer: Option<Pointer> = match services.store.get(&Key::Latest(network.to_owned())).await? {
        Some((bytes, _)) => Some(serde_json::from_slice(&bytes)?),
        None => None,
    };
    let chain = figures::chain(&services.indexed).await?;
    let last_run = figures::last_run(&services.control, network).await?;
    let audit_problem = figures::audit_problem(&services.control, network).await?;
    let changed_ranges = figures::changed_ranges(&services.control, network).await?;
    let at = Utc::now();
    let (lagging, stale) = (services.settings.lagging_after, services.settings.stale_after);
    let snapshot = pointer.as_ref().map(|pointer| newest(pointer, at, &chain)).transpose()?;
    let drill = drills::find(services, network, pointer.as_ref(), at).await?;
    let faulty = audit_problem.is_some() || changed_ranges > 0 || drill.problem.is_some();
    let age = drill.judged_age(snapshot.as_ref().map(|one| one.age_seconds));
    let state = judge(faulty, chain.missing_blocks > 0, age, (lagging, stale));
    Ok(Freshness {
        version: 1,
        network: network.to_owned(),
        at,
        state,
        snapshot,
        drill,
        chain,
        audit_problem,
        changed_ranges,
        last_run,
        full: figures::full(&services.control, network, at).await?,
        lagging_after_seconds: lagging.as_secs(),
        stale_after_seconds: stale.as_secs(),
    })
}

/// The figures of the indexed chain alone.
///
/// # Errors
/// The database's.
pub async fn chain(services: &Services) -> Result<ChainFigures, StatusError> {
    Ok(figures::chain(&services.indexed).await?)
}

fn newest(pointer: &Pointer, at: DateTime<Utc>, chain: &ChainFigures) -> Result<Newest, chrono::ParseError> {
    let created_at: DateTime<Utc> = pointer.created_at.parse()?;
    Ok(Newest {
        id: pointer.snapshot_id.clone(),
        sequence: pointer.sequence,
        block_height: pointer.block_height,
        created_at,
        age_seconds: (at - created_at).num_seconds().max(0).unsigned_abs(),
        blocks_behind: chain.tip.unwrap_or_default().saturating_sub(pointer.block_height),
    })
}

fn judge(faulty: bool, gap: bool, age: Option<u64>, (lagging, stale): (Duration, Duration)) -> State {
    match age {
        _ if faulty => State::FailedAudit,
        _ if gap => State::Gap,
        None => State::Stale,
        Some(age) if age >= stale.as_secs() => State::Stale,
        Some(age) if age >= lagging.as_secs() => State::Lagging,
        Some(_) => State::Fresh,
    }
}

/// Writes `status.json`. Nothing depends on it, so a failure is logged and no more.
pub(crate) async fn write(services: &Services, network: &str) {
    if let Err(error) = try_write(services, network).await {
        tracing::warn!(network, error = %error, "status.json could not be written");
    }
}

async fn try_write(services: &Services, network: &str) -> Result<Freshness, StatusError> {
    let found = find(services, network).await?;
    let body = Bytes::from(serde_json::to_vec_pretty(&found.clone().public())?);
    let key = Key::Status(network.to_owned());
    let etag = services.store.head(&key).await?.map(|meta| meta.etag);
    match services.store.put_if_match(&key, body, etag.as_deref()).await {
        // Somebody else wrote it at the same moment: it is as new as ours.
        Ok(_) | Err(StoreError::Precondition { .. } | StoreError::Missing { .. }) => Ok(found),
        Err(error) => Err(error.into()),
    }
}

/// What a status run is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    network: Option<String>,
}

/// One step: write it.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("write", run).queue(Queue::Control)
}

async fn run(ctx: Ctx<Services>, params: Params) -> Result<Freshness, StepError> {
    try_write(ctx.services(), &params.network.unwrap_or_default()).await.map_err(crate::step_error::classify)
}

/// Resolves the network.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let Params { network } = read(NAME, params)?;
        start_on_network(services, NAME, network, |network| json!({ "network": network })).await
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_without_a_time_is_not_taken_for_one_of_this_moment() {
        let of = |created_at: &str| {
            let pointer = json!({
                "version": 1, "network": "mainnet", "snapshot_id": "2026-02-05", "sequence": 1, "created_at": created_at,
                "block_height": 7, "block_hash": "0x", "manifest": "", "manifest_sha256": "", "url": "", "checksum": "", "size_bytes": 0,
            });
            let at = "2026-02-06T00:00:00Z".parse().unwrap();
            newest(&serde_json::from_value(pointer).unwrap(), at, &ChainFigures::default())
        };
        assert_eq!(of("2026-02-05T00:00:00Z").unwrap().age_seconds, 86_400);
        assert!(of("yesterday").is_err() && of("").is_err());
    }

    #[test]
    fn the_worst_that_holds_is_said() {
        let limits = (Duration::from_secs(100), Duration::from_secs(200));
        assert_eq!(judge(false, false, Some(99), limits), State::Fresh);
        assert_eq!(judge(false, false, Some(100), limits), State::Lagging);
        assert_eq!(judge(false, false, Some(200), limits), State::Stale);
        assert_eq!(judge(false, false, None, limits), State::Stale);
        assert_eq!(judge(false, true, Some(0), limits), State::Gap);
        assert_eq!(judge(true, true, Some(0), limits), State::FailedAudit);
        assert_eq!(serde_json::to_value(State::FailedAudit).unwrap(), "failed-audit");
    }
}
