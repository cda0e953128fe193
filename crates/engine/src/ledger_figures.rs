//! The engine's own figures, read from the ledger: runs, queues, processes. One named function per statement.
//! Invariant: each statement reads what is unfinished or recent, by an index, however long the history.
use chrono::{DateTime, Utc};
use metrics::{Unit, describe_gauge};
use sqlx::PgPool;

use crate::{
    catalog::Catalog,
    figures::{Sample, Source},
    model::{Queue, RunState},
    workers::{GONE_AFTER_S, WorkerState},
};

const JOBS: &str = "snapshots_jobs";
const DEAD: &str = "snapshots_jobs_dead";
const OLDEST: &str = "snapshots_queue_oldest_ready_age_seconds";
const WORKERS: &str = "snapshots_workers";
const HEARTBEAT: &str = "snapshots_worker_last_heartbeat_timestamp_seconds";

const UNFINISHED: [RunState; 4] = [RunState::Queued, RunState::Running, RunState::Retrying, RunState::Paused];

pub(crate) fn describe() {
    describe_gauge!(JOBS, "Unfinished runs, by workflow and state.");
    describe_gauge!(DEAD, "Runs that failed within the last 24 hours and that nobody has retried, by workflow.");
    describe_gauge!(OLDEST, Unit::Seconds, "How long the oldest step that could run waits for a process, by queue.");
    describe_gauge!(WORKERS, "Processes that take steps of a queue, by state; those that are gone are seen for a day.");
    describe_gauge!(HEARTBEAT, Unit::Seconds, "When a process of a role was seen last.");
}

/// The source of the engine's figures.
pub(crate) fn source(pool: PgPool, catalog: Catalog) -> Source {
    Source::new("engine", move || {
        let (pool, catalog) = (pool.clone(), catalog.clone());
        async move { Ok(measure(&pool, &catalog).await?) }
    })
}

async fn measure(pool: &PgPool, catalog: &Catalog) -> sqlx::Result<Vec<Sample>> {
    let mut series = Vec::new();
    let (jobs, dead) = (jobs(pool).await?, dead(pool).await?);
    for kind in catalog.names() {
        for state in UNFINISHED {
            let found = jobs.iter().find(|(workflow, word, _)| workflow == kind && *word == state);
            let count = found.map_or(0, |(_, _, count)| *count);
            series.push(Sample::new(JOBS, &[("kind", kind), ("state", state.as_str())], count as f64));
        }
        let count = dead.iter().find(|(workflow, _)| workflow == kind).map_or(0, |(_, count)| *count);
        series.push(Sample::new(DEAD, &[("kind", kind)], count as f64));
    }
    let (ages, workers) = (oldest_ready(pool).await?, workers(pool).await?);
    for queue in Queue::ALL {
        let age = ages.iter().find(|(name, _)| name == queue.as_str()).map_or(0.0, |(_, age)| *age);
        series.push(Sample::new(OLDEST, &[("queue", queue.as_str())], age));
        for state in WorkerState::ALL {
            let found = workers.iter().find(|(name, word, _)| name == queue.as_str() && word == state);
            let count = found.map_or(0, |(_, _, count)| *count);
            series.push(Sample::new(WORKERS, &[("queue", queue.as_str()), ("state", state.as_str())], count as f64));
        }
    }
    for (role, seen_at) in heartbeats(pool).await? {
        series.push(Sample::new(HEARTBEAT, &[("role", &role)], seen_at.timestamp_millis() as f64 / 1e3));
    }
    Ok(series)
}

async fn jobs(pool: &PgPool) -> sqlx::Result<Vec<(String, RunState, i64)>> {
    let sql = "select workflow, state, count(*) from snapshots.run \
         where state in ('queued', 'running', 'retrying', 'paused') group by workflow, state";
    sqlx::query_as(sql).fetch_all(pool).await
}

/// A retry from the failed step goes on in the same run; one from the start is a child of it.
async fn dead(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    let sql = "select r.workflow, count(*) from snapshots.run r \
         where r.state = 'failed' and r.done_at > now() - interval '1 day' \
           and not exists (select 1 from snapshots.run c where c.parent_run_id = r.id and c.workflow = r.workflow) \
         group by r.workflow";
    sqlx::query_as(sql).fetch_all(pool).await
}

async fn oldest_ready(pool: &PgPool) -> sqlx::Result<Vec<(String, f64)>> {
    let sql = "select s.queue, extract(epoch from max(now() - s.run_at))::double precision \
         from snapshots.step s join snapshots.run r on r.id = s.run_id \
         where s.state = 'ready' and s.run_at <= now() and r.state in ('queued', 'running', 'retrying') \
           and not snapshots.is_paused(r.workflow, s.queue) \
         group by s.queue";
    sqlx::query_as(sql).fetch_all(pool).await
}

async fn workers(pool: &PgPool) -> sqlx::Result<Vec<(String, WorkerState, i64)>> {
    let sql = "select q.name, case when w.seen_at < now() - make_interval(secs => $1) then 'gone' \
             when w.draining then 'draining' else 'alive' end as state, count(*) \
         from snapshots.worker w cross join lateral unnest(w.queues) q (name) group by 1, 2";
    sqlx::query_as(sql).bind(GONE_AFTER_S).fetch_all(pool).await
}

async fn heartbeats(pool: &PgPool) -> sqlx::Result<Vec<(String, DateTime<Utc>)>> {
    let sql = "select r.name, max(w.seen_at) from snapshots.worker w cross join lateral unnest(w.roles) r (name) group by 1";
    sqlx::query_as(sql).fetch_all(pool).await
}
