//! Step `plan`: chooses the height, refuses a faulty chain, names the snapshot, cuts the heights into ranges, and decides which
//! of them are still what they were in the snapshot before.

use chrono::{DateTime, TimeDelta, Utc};
use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapshot::chunk::Heights;
use snapshot::columns::{self, TableShape};
use snapshot::cut::begin_export;
use snapshot::grid::{self, GridRange};
use snapshot::height::{self, ChainFacts, HeightError};
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::Archive;
use snapshot::writes;
use sqlx::PgConnection;

use super::reuse::{self, Base, Split};
use super::{Params, archive};
use crate::catalog::{self, Allocation};
use crate::newest::{self, Reference};
use crate::services::Services;
use crate::step_error::classify;

/// What the run is going to do. Everything later follows from it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Network.
    pub network: String,
    /// Snapshot id.
    pub id: String,
    /// Sequence number.
    pub sequence: u64,
    /// The snapshot that `latest` pointed at.
    pub previous: Option<String>,
    /// When it was planned.
    pub created_at: DateTime<Utc>,
    /// After this time nobody should believe any more that it is the newest.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Bitcoin blocks asked for as finality.
    pub confirmations: u32,
    /// Whether the archive will be stored.
    pub archive: Archive,
    /// Where the archive can be read, fixed now so that every attempt writes the same manifest.
    pub archive_base_url: String,
    /// The chain as it was.
    pub facts: ChainFacts,
    /// Tables and columns to publish, in load order.
    pub shapes: Vec<TableShape>,
    /// Ranges of heights, lowest first.
    pub ranges: Vec<GridRange>,
    /// The snapshot that unchanged ranges are taken from.
    pub base: Option<Reference>,
    /// Those of the ranges that are unchanged since.
    pub reused: Vec<Heights>,
    /// Those of the others that it has too: much of what is cut there is in the bucket.
    #[serde(default)]
    pub recut: Vec<Heights>,
    /// How tables of the other ranges were split before.
    pub splits: Vec<Split>,
    /// Version of the server.
    pub postgres: String,
    /// Last migration of the original that was applied.
    pub schema_version: Option<String>,
}

/// What one child of `dump` cuts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpJob {
    /// All chain tables in one range of heights.
    Range(GridRange),
    /// The tables that have no height.
    SmallTables,
}

impl Plan {
    /// Where its objects will lie.
    pub fn path(&self) -> SnapshotPath {
        SnapshotPath::new(&self.network, &self.id)
    }

    /// Children of `dump`: full ranges first, since they take longest, the tail and the small tables last.
    pub fn jobs(&self) -> Vec<DumpJob> {
        let changed = || self.ranges.iter().filter(|range| !self.reused.contains(&range.heights));
        let sealed = changed().filter(|range| range.sealed);
        let tail = changed().filter(|range| !range.sealed);
        sealed.chain(tail).copied().map(DumpJob::Range).chain([DumpJob::SmallTables]).collect()
    }

    /// The parts in which a table of a range is cut: one, unless it was split before.
    pub fn parts(&self, table: &str, range: Heights) -> Vec<Heights> {
        let split = self.splits.iter().find(|split| split.table == table && split.range == range);
        split.map_or_else(|| vec![range], |split| split.parts.clone())
    }
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Plan, StepError> {
    let services = ctx.services();
    let mut conn = services.indexed.acquire().await.map_err(classify)?;
    let mut tx = begin_export(&mut conn).await.map_err(classify)?;
    let shapes = columns::discover(&mut tx, &services.settings.columns).await.map_err(classify)?;
    let wanted = params.network.as_deref().or(services.settings.network.as_deref());
    let network = height::network(&mut tx, wanted).await.map_err(classify)?;
    let facts = height::find(&mut tx, services.settings.confirmations).await.map_err(classify)?;
    let written = writes::read(&mut tx).await.map_err(classify)?;
    let latest = newest::pointer(services, &network).await?;
    let base = Base::load(&ctx, reuse::base(services, &network, latest.as_ref()).await?).await?;
    let ranges = grid::ranges(facts.first, facts.height);
    let now = reuse::Now { network: &network, shapes: &shapes, ranges: &ranges, writes: written.as_ref() };
    let reused = match &base {
        Some(base) if !params.full => reuse::unchanged(&ctx, &mut tx, base, &now).await?,
        _ => Vec::new(),
    };
    let gate = height::gate(&mut tx, &facts, first_unknown(&ranges, &reused, facts.first)).await;
    passed(&ctx, gate).await?;
    let postgres = server_version(&mut tx).await.map_err(classify)?;
    let schema_version = last_migration(&mut tx).await.map_err(classify)?;
    drop(tx);

    let created_at = Utc::now();
    let archive = archive::decide(services, &network, created_at).await?;
    let floor = latest.as_ref().map_or(0, |pointer| pointer.sequence);
    let allocation = allocate(&ctx, &network, created_at, floor).await?;
    catalog::keep_writes(&services.control, ctx.run().0, written.as_ref()).await.map_err(classify)?;
    Ok(Plan {
        id: allocation.id,
        sequence: allocation.sequence.unsigned_abs(),
        previous: latest.map(|pointer| pointer.snapshot_id),
        created_at,
        expires_at: created_at.checked_add_signed(TimeDelta::from_std(services.settings.latest_valid).unwrap_or_default()),
        confirmations: services.settings.confirmations,
        archive_base_url: services.settings.archive_base_url(archive).to_owned(),
        archive,
        recut: base.as_ref().map(|base| base.recut(&ranges, &reused)).unwrap_or_default(),
        splits: base.as_ref().map(|base| base.splits(&ranges, &reused)).unwrap_or_default(),
        base: base.map(Base::into_reference).filter(|_| !reused.is_empty()),
        ranges,
        reused,
        network,
        facts,
        shapes,
        postgres,
        schema_version,
    })
}

/// A refused chain is an alarm, whoever reads the run's error or not.
async fn passed(ctx: &Ctx<Services>, gate: Result<(), HeightError>) -> Result<(), StepError> {
    let Err(error) = gate else { return Ok(()) };
    if !matches!(error, HeightError::Database(_)) {
        tracing::error!(problem = %error, "the chain was refused");
        ctx.event(Level::Error, super::AUDIT_FAILED, json!({ "problem": error.to_string() })).await?;
    }
    Err(classify(error))
}

/// The lowest height that the gate must look at: everything below lies in ranges that passed it before and are unchanged.
fn first_unknown(ranges: &[GridRange], reused: &[Heights], first: u64) -> u64 {
    let known = ranges.iter().map(|range| range.heights).take_while(|heights| reused.contains(heights));
    known.last().map_or(first, |heights| heights.to + 1)
}

/// The run's own id if it has one; else the first of `date`, `date.2`, … that neither the catalog nor the bucket knows.
async fn allocate(ctx: &Ctx<Services>, network: &str, now: DateTime<Utc>, floor: u64) -> Result<Allocation, StepError> {
    let services = ctx.services();
    let run = ctx.run().0;
    if let Some(mine) = catalog::allocation_of(&services.control, run).await.map_err(classify)? {
        return Ok(mine);
    }
    let date = now.date_naive();
    let taken = catalog::ids_on(&services.control, network, date).await.map_err(classify)?;
    let candidates = std::iter::once(date.to_string()).chain((2..).map(|n| format!("{date}.{n}")));
    for id in candidates.filter(|id| !taken.contains(id)) {
        let manifest = Key::Manifest(SnapshotPath::new(network, &id));
        if services.store.head(&manifest).await.map_err(classify)?.is_none() {
            let mut conn = services.control.acquire().await.map_err(classify)?;
            return catalog::allocate(&mut conn, run, network, &id, floor).await.map_err(StepError::retry);
        }
    }
    unreachable!("the candidates never end")
}

async fn server_version(conn: &mut PgConnection) -> sqlx::Result<String> {
    let version: String = sqlx::query_scalar("show server_version").fetch_one(conn).await?;
    Ok(version.split_whitespace().next().unwrap_or_default().to_owned())
}

async fn last_migration(conn: &mut PgConnection) -> sqlx::Result<Option<String>> {
    let there: bool =
        sqlx::query_scalar("select to_regclass('public.kysely_migration') is not null").fetch_one(&mut *conn).await?;
    if !there {
        return Ok(None);
    }
    sqlx::query_scalar("select max(name collate \"C\") from public.kysely_migration").fetch_one(conn).await
}
