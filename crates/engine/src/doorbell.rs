//! Doorbells: messages in `apalis.jobs` that a step may be ready. The only Rust file that names apalis; in SQL it is
//! `snapshots.ring` that writes them.
//!
//! apalis gives a transactional enqueue, a wake-up by NOTIFY and a pull loop; it keeps no truth. Invariant: a doorbell
//! carries a step's id and nothing else, its handler always succeeds, and losing or doubling one costs time, not work.
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{
    BackendExt, BoxDynError, Data, IntervalStrategy, PollSnapshot, PollStrategy, WorkerBuilder, WorkerBuilderExt, WorkerContext,
};
use apalis_postgres::{Config, PostgresStorage};
use futures::{Stream, channel::mpsc, future::BoxFuture};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::{
    error::{BoxError, SetupError},
    model::{Queue, StepId},
    statements::millis,
};

/// The channel apalis notifies for each doorbell that is due at once.
pub(crate) const CHANNEL: &str = "apalis::job::insert";

/// How often a worker looks without having been woken; only a notification lost on the way waits for it.
const POLL: Duration = Duration::from_secs(5);

/// How often a pull loop tells apalis that it lives. After five without one apalis offers what the loop had fetched to others;
/// sweep rings for it long before.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Doorbell {
    step: StepId,
}

/// What a worker does with a doorbell.
pub(crate) type OnRing = Arc<dyn Fn(StepId) -> BoxFuture<'static, ()> + Send + Sync>;

/// Makes or updates the tables of apalis and mends its fetch: since its last migration it is planned as a scan of all
/// jobs (45 to 100 ms at 50,000 rows), without hash and merge joins as an index lookup (1 ms).
pub(crate) async fn setup(pool: &PgPool) -> Result<(), SetupError> {
    PostgresStorage::setup(pool).await.map_err(|error| SetupError::Doorbell(error.into()))?;
    let mend = [
        "alter function apalis.get_jobs(text, text, integer) set enable_hashjoin = off",
        "alter function apalis.get_jobs(text, text, integer) set enable_mergejoin = off",
        // `if not exists` would lock the table first, and with it every worker out while one transaction is open.
        "do $$ begin if to_regclass('apalis.snapshots_jobs_done') is null then \
         create index snapshots_jobs_done on apalis.jobs (done_at) where done_at is not null; end if; end $$",
        // An early migration of apalis leaves it in the first schema of the search path; a later one drops it only from public.
        "drop function if exists snapshots.generate_ulid()",
    ];
    for sql in mend {
        sqlx::query(sql).execute(pool).await.map_err(|error| SetupError::Doorbell(error.into()))?;
    }
    Ok(())
}

/// Rings for steps, in the caller's transaction: if it commits, workers wake.
pub(crate) async fn ring(conn: &mut PgConnection, steps: &[StepId]) -> sqlx::Result<()> {
    let steps: Vec<i64> = steps.iter().map(|step| step.0).collect();
    sqlx::query("select snapshots.ring($1)").bind(steps).execute(conn).await?;
    Ok(())
}

/// Takes doorbells away from pull loops that have ended, whose names begin with `former`. Else they would be offered to others only
/// when the loop had been silent for long, and sweep leaves them alone while the process beats.
pub(crate) async fn release(pool: &PgPool, former: &str) -> sqlx::Result<()> {
    let sql = "with released as ( \
             delete from apalis.jobs \
             where starts_with(lock_by, $1) and status in ('Queued', 'Running') returning id \
         ) \
         update snapshots.step s set doorbell = null, rang_at = null from released r where s.doorbell = r.id and s.state = 'ready'";
    sqlx::query(sql).bind(former).execute(pool).await.map(drop)
}

/// Deletes doorbells answered longer than `age` ago, at most `limit`. Returns how many.
pub(crate) async fn prune(pool: &PgPool, age: Duration, limit: i64) -> sqlx::Result<u64> {
    let sql = "delete from apalis.jobs where id in (select id from apalis.jobs \
         where done_at < now() - $1 * interval '1 millisecond' and status in ('Done', 'Failed', 'Killed') \
         order by done_at limit $2)";
    Ok(sqlx::query(sql).bind(millis(age)).bind(limit).execute(pool).await?.rows_affected())
}

/// Deletes workers of apalis that are long gone and hold no doorbell.
pub(crate) async fn prune_workers(pool: &PgPool) -> sqlx::Result<()> {
    let sql = "delete from apalis.workers w where w.last_seen < now() - interval '1 day' \
         and not exists (select 1 from apalis.jobs j where j.lock_by = w.id)";
    sqlx::query(sql).execute(pool).await?;
    Ok(())
}

/// The queue named in a notification's payload.
pub(crate) fn notified_queue(payload: &str) -> Option<Queue> {
    #[derive(Deserialize)]
    struct Inserted {
        job_type: Queue,
    }
    serde_json::from_str::<Inserted>(payload).ok().map(|inserted| inserted.job_type)
}

/// Wakes the worker's pull loop: on a signal, else every [`POLL`].
struct Wake {
    signals: mpsc::Receiver<()>,
    interval: IntervalStrategy,
}

impl PollStrategy for Wake {
    fn poll_drive(&mut self, cx: &mut Context<'_>, snapshot: &PollSnapshot) -> Poll<Option<()>> {
        let mut woken = self.interval.poll_drive(cx, snapshot).is_ready();
        while let Poll::Ready(Some(())) = Pin::new(&mut self.signals).poll_next(cx) {
            woken = true;
        }
        // The fetch that is ending in this very poll may have missed what the signal was about: poll once more.
        if woken {
            cx.waker().wake_by_ref();
            return Poll::Ready(Some(()));
        }
        Poll::Pending
    }
}

/// One pull loop on one queue.
pub(crate) struct Puller {
    pub(crate) pool: PgPool,
    pub(crate) queue: Queue,
    /// Never used before, by any process: apalis tells the living from the dead by it.
    pub(crate) name: String,
    pub(crate) concurrency: usize,
    pub(crate) signals: mpsc::Receiver<()>,
    pub(crate) on_ring: OnRing,
}

impl Puller {
    /// Pulls until `stop` resolves and the doorbells in hand are answered, or until the database fails it: the caller
    /// then starts a new one under a new name.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), BoxError> {
        let config = Config::default()
            .queue(self.queue.as_str())
            .batch_size(1)
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(5)
            .lock_tasks(false)
            .persist_results(true);
        let wake = Wake { signals: self.signals, interval: IntervalStrategy::new(POLL) };
        let backend = PostgresStorage::<Doorbell>::new(&self.pool).with_config(config).poll_with_strategy(wake);
        let context = WorkerContext::new(&self.name);
        let worker = WorkerBuilder::new(&context).backend(backend).data(self.on_ring).concurrency(self.concurrency).build(answer);
        let mut running: BoxFuture<'_, _> = Box::pin(worker.run());
        tokio::select! {
            ended = &mut running => return ended.map_err(Into::into),
            () = stop => {}
        }
        // A worker that has not begun yet has nothing to finish, and cannot be stopped.
        if context.stop().is_err() {
            return Ok(());
        }
        running.await.map_err(Into::into)
    }
}

async fn answer(doorbell: Doorbell, on_ring: Data<OnRing>) -> Result<(), BoxDynError> {
    on_ring(doorbell.step).await;
    Ok(())
}
