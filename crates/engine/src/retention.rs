//! What is kept how long. Finished runs go with their steps, attempts and events; so do answered doorbells, used
//! idempotency keys, old lines of the audit log, and slots whose holder is gone.
//!
//! Beside the sweep, not in it: however much there is to delete, expired leases are not waited with.
//! Invariant: nothing unfinished is deleted, and no transaction deletes more than a batch.
use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tracing::{info, warn};

use crate::{catalog::Catalog, client::Client, doorbell, error::chain, registry::Registration, statements::millis};

/// Runs deleted in one transaction.
const RUNS: i64 = 100;
/// Other rows deleted in one transaction.
const ROWS: i64 = 5000;
/// Transactions of one kind in a row, so that each kind gets its turn.
const BATCHES: usize = 50;

/// How long what has ended is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Finished runs, from their end. Default: 90 days.
    pub runs_for: Duration,
    /// Finished runs of one workflow: the newest so many, if they are not too old. Default: 10,000.
    pub runs_per_workflow: u32,
    /// Idempotency keys, from their first use. Default: 24 hours.
    pub keys_for: Duration,
    /// Lines of the audit log. Default: 400 days.
    pub audit_for: Duration,
    /// Doorbells, from their answer. Default: 10 minutes.
    pub doorbells_for: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            runs_for: day * 90,
            runs_per_workflow: 10_000,
            keys_for: day,
            audit_for: day * 400,
            doorbells_for: Duration::from_secs(600),
        }
    }
}

/// How many rows were deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Runs, each with its steps, attempts and events.
    pub runs: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Lines of the audit log.
    pub audit: u64,
    /// Doorbells.
    pub doorbells: u64,
}

impl Client {
    /// Deletes what is kept long enough: an engine does this by itself.
    ///
    /// # Errors
    /// The database's; what was deleted before stays deleted.
    pub async fn prune(&self, retention: &Retention) -> sqlx::Result<Pruned> {
        prune(&self.pool, &self.catalog, retention).await
    }
}

async fn prune(pool: &PgPool, catalog: &Catalog, retention: &Retention) -> sqlx::Result<Pruned> {
    let (workflows, _) = catalog.versions();
    let keys = "delete from snapshots.idempotency_key where (principal, request, key) in ( \
         select principal, request, key from snapshots.idempotency_key \
         where created_at < now() - $1 * interval '1 millisecond' limit $2)";
    let audit = "delete from snapshots.audit_log where id in ( \
         select id from snapshots.audit_log where at < now() - $1 * interval '1 millisecond' limit $2)";
    let by_age = batches(RUNS, || old_runs(pool, retention.runs_for)).await?;
    let keep = i64::from(retention.runs_per_workflow);
    let by_count = batches(1, || surplus_runs(pool, &workflows, keep)).await?;
    Ok(Pruned {
        runs: by_age + by_count,
        keys: batches(ROWS, || old_rows(pool, keys, retention.keys_for)).await?,
        audit: batches(ROWS, || old_rows(pool, audit, retention.audit_for)).await?,
        doorbells: batches(ROWS, || doorbell::prune(pool, retention.doorbells_for, ROWS)).await?,
    })
}

/// Repeats a deletion while it deletes `full` rows or more.
async fn batches<D>(full: i64, mut delete: impl FnMut() -> D) -> sqlx::Result<u64>
where
    D: Future<Output = sqlx::Result<u64>>,
{
    let mut deleted = 0;
    for _ in 0..BATCHES {
        let batch = delete().await?;
        deleted += batch;
        if batch < full.unsigned_abs() {
            break;
        }
    }
    Ok(deleted)
}

async fn old_rows(pool: &PgPool, sql: &'static str, age: Duration) -> sqlx::Result<u64> {
    Ok(sqlx::query(sql).bind(millis(age)).bind(ROWS).execute(pool).await?.rows_affected())
}

async fn old_runs(pool: &PgPool, age: Duration) -> sqlx::Result<u64> {
    let sql = "delete from snapshots.run where id in ( \
         select id from snapshots.run where done_at < now() - $1 * interval '1 millisecond' \
         order by done_at limit $2 for update skip locked)";
    Ok(sqlx::query(sql).bind(millis(age)).bind(RUNS).execute(pool).await?.rows_affected())
}

/// The oldest finished runs of each workflow beyond the newest `keep`.
async fn surplus_runs(pool: &PgPool, workflows: &[String], keep: i64) -> sqlx::Result<u64> {
    let sql = "delete from snapshots.run where done_at is not null and id in ( \
         select d.id from unnest($1::text[]) w (name) cross join lateral ( \
             select id from snapshots.run where workflow = w.name and done_at is not null \
             order by done_at desc offset $2 limit $3) d)";
    Ok(sqlx::query(sql).bind(workflows).bind(keep).bind(RUNS).execute(pool).await?.rows_affected())
}

/// Frees slots whose holder does not run: only a hand in the tables leaves such. The holder is read once and compared,
/// so that a slot that changes hands meanwhile is left alone.
async fn free_slots(pool: &PgPool) -> sqlx::Result<()> {
    let sql = "update snapshots.limit_slot l set holder = null from snapshots.limit_slot seen \
         where seen.key = l.key and seen.no = l.no and seen.holder = l.holder \
           and not exists (select 1 from snapshots.step s where s.id = seen.holder and s.state = 'running')";
    sqlx::query(sql).execute(pool).await?;
    Ok(())
}

/// Prunes at intervals.
pub(crate) struct Tidier {
    pub(crate) pool: PgPool,
    pub(crate) catalog: Catalog,
    pub(crate) interval: Duration,
    pub(crate) retention: Retention,
    pub(crate) registration: Arc<Registration>,
}

impl Tidier {
    /// Tidies until dropped.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.tidy().await {
                Ok(pruned) if pruned.runs > 0 => info!(runs = pruned.runs, "deleted runs that were kept long enough"),
                Ok(_) => {}
                Err(error) => warn!(error = chain(&error), "cannot delete what is kept long enough, trying again"),
            }
        }
    }

    async fn tidy(&self) -> sqlx::Result<Pruned> {
        free_slots(&self.pool).await?;
        doorbell::prune_workers(&self.pool).await?;
        self.registration.prune(&self.pool).await?;
        prune(&self.pool, &self.catalog, &self.retention).await
    }
}
