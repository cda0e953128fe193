//! The statements that carry the engine: claim, renew, complete (with `plan` for fan-outs), end, and what sweep needs.
//! SQL lives beside this file, one statement a file; reading for people is `queries`' business.
//!
//! Invariant of all of them: a write about a step takes effect only where its lease token is the latest and the step is
//! `running`; what it sets off (dependents, doorbells, the run's end) commits with it or not at all. Each may be run
//! again after an unknown outcome: the second time it reports [`Written::Fenced`] and changes nothing.
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    doorbell::{self, Ring},
    model::{Level, Progress, RunId, RunState, StepId, StepKind, StepState},
};

/// The right to write about a step: its id and the token of its latest claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The step.
    pub step: StepId,
    /// Greater than the token of every earlier claim of any step.
    pub token: i64,
}

/// Whether a fenced write took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It did.
    Done,
    /// Somebody else holds the step by now, or it has ended: nothing was changed.
    Fenced,
}

/// Who claims, and what it is able to run.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The worker's id in the ledger.
    pub worker: String,
    /// How long a claim or renewal holds.
    pub lease: Duration,
    /// Names of the workflows it knows …
    pub workflows: Vec<String>,
    /// … and their versions, side by side.
    pub versions: Vec<i32>,
}

/// A step under lease, with what its attempt needs.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    pub(crate) id: StepId,
    pub(crate) lease_token: i64,
    /// Its run.
    pub run_id: RunId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: StepKind,
    /// A child's place, else 0.
    pub index: i32,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// Attempts allowed.
    pub max_attempts: i32,
    pub(crate) backoff_base_ms: i64,
    pub(crate) backoff_cap_ms: i64,
    pub(crate) timeout_ms: Option<i64>,
    pub(crate) input: Option<Value>,
    /// The run's workflow.
    pub workflow: String,
    /// The run's version of it.
    pub version: i32,
    pub(crate) unique_key: Option<String>,
    pub(crate) params: Value,
    pub(crate) created_at: DateTime<Utc>,
}

impl Claimed {
    /// The right to write about it.
    #[must_use]
    pub const fn lease(&self) -> Lease {
        Lease { step: self.id, token: self.lease_token }
    }

    pub(crate) const fn backoff(&self) -> Backoff {
        backoff(self.backoff_base_ms, self.backoff_cap_ms)
    }
}

const fn backoff(base_ms: i64, cap_ms: i64) -> Backoff {
    Backoff {
        base: Duration::from_millis(base_ms.unsigned_abs()),
        cap: Duration::from_millis(cap_ms.unsigned_abs()),
    }
}

/// How an attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Try again after the wait; `error` says why.
    Retry {
        /// The wait.
        after: Duration,
        /// Why, causes included.
        error: String,
    },
    /// No further attempt.
    Failed {
        /// Why, causes included.
        error: String,
    },
    /// Given back unspent.
    Yielded {
        /// Not claimed again before this has passed.
        after: Duration,
    },
}

/// **Claim.** Takes a ready step whose time has come for `claimant`, opening an attempt; `None` means the doorbell was
/// stale. Invariant: of any number of claims of one ready step one succeeds; a step of a workflow or version the
/// claimant does not know, of a paused, cancelled or finished run, or out of attempts, is never claimed. An expired
/// lease is not for the taking here: only [`expire_one`] decides that a holder is gone.
///
/// # Errors
/// The database's.
pub async fn claim(pool: &PgPool, step: StepId, claimant: &Claimant) -> sqlx::Result<Option<Claimed>> {
    sqlx::query_as(include_str!("sql/claim.sql"))
        .bind(step)
        .bind(&claimant.worker)
        .bind(millis(claimant.lease))
        .bind(&claimant.workflows)
        .bind(&claimant.versions)
        .fetch_optional(pool)
        .await
}

/// What a renewal brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Go on.
    Held,
    /// Go on to a quick end: the run was cancelled.
    CancelRequested,
    /// Somebody else holds the step, or it has ended: stop.
    Lost,
}

/// **Renew.** Extends the lease and stores progress. Invariant: only the latest holder renews, and a holder learns of a
/// cancellation within one renewal.
///
/// # Errors
/// The database's; the lease then runs on until it expires.
pub async fn renew(
    pool: &PgPool,
    lease: Lease,
    length: Duration,
    progress: Option<&Progress>,
) -> sqlx::Result<Renewed> {
    let cancelled: Option<bool> = sqlx::query_scalar(include_str!("sql/renew.sql"))
        .bind(lease.step)
        .bind(lease.token)
        .bind(millis(length))
        .bind(progress.map(sqlx::types::Json))
        .fetch_optional(pool)
        .await?;
    Ok(match cancelled {
        None => Renewed::Lost,
        Some(true) => Renewed::CancelRequested,
        Some(false) => Renewed::Held,
    })
}

/// **Complete.** Stores a step's output and sets off what comes after it, in one transaction: dependents whose last
/// predecessor this was become ready and are rung for, a group whose last child this was ends, a run without unfinished
/// steps ends. Invariant: each of these happens exactly once, whoever completes how often.
///
/// # Errors
/// The database's; the outcome is then unknown and calling again is right.
pub async fn complete(
    pool: &PgPool,
    lease: Lease,
    output: &Value,
    progress: Option<&Progress>,
) -> sqlx::Result<Written> {
    let mut tx = pool.begin().await?;
    let done: Option<(RunId, Option<StepId>)> = sqlx::query_as(include_str!("sql/complete.sql"))
        .bind(lease.step)
        .bind(lease.token)
        .bind(output)
        .bind(progress.map(sqlx::types::Json))
        .fetch_optional(&mut *tx)
        .await?;
    let Some((run, group)) = done else { return Ok(Written::Fenced) };
    match group {
        Some(group) => count_child(&mut tx, run, group, false).await?,
        None => succeeded(&mut tx, run, lease.step).await?,
    }
    tx.commit().await?;
    Ok(Written::Done)
}

/// **Plan** (complete, for a group). Makes one child per input, by index, rings for all of them, and leaves the group
/// waiting for their ends; without inputs the group has succeeded. Invariant: a child is unique by (run, name, index).
///
/// # Errors
/// The database's; the outcome is then unknown and calling again is right.
pub async fn plan(pool: &PgPool, lease: Lease, inputs: &[Value]) -> sqlx::Result<Written> {
    let mut tx = pool.begin().await?;
    let count = i32::try_from(inputs.len()).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let run: Option<RunId> = sqlx::query_scalar(include_str!("sql/plan_children.sql"))
        .bind(lease.step)
        .bind(lease.token)
        .bind(count)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(run) = run else { return Ok(Written::Fenced) };
    let rings: Vec<Ring> = sqlx::query_as(include_str!("sql/insert_children.sql"))
        .bind(lease.step)
        .bind(inputs)
        .fetch_all(&mut *tx)
        .await?;
    doorbell::ring(&mut tx, &rings).await?;
    if count == 0 {
        end_group(&mut tx, run, lease.step, 0).await?;
    }
    tx.commit().await?;
    Ok(Written::Done)
}

/// **Fail** (and yield). Ends an attempt without success: the step is ready again later, or failed for good, or, its run
/// being cancelled, cancelled. Invariant: the time of the next attempt is stored, not slept; a step that failed for good
/// fails its run visibly, what comes after it is skipped, what does not depend on it goes on.
///
/// # Errors
/// The database's; the outcome is then unknown and calling again is right.
pub async fn end(pool: &PgPool, lease: Lease, ending: &Ending) -> sqlx::Result<Written> {
    let mut tx = pool.begin().await?;
    let written = end_in(&mut tx, lease, ending, false).await?;
    tx.commit().await?;
    Ok(written)
}

/// **Sweep, expired leases.** Ends the attempt whose lease expired first, as lost: ready again (at once the first time,
/// with backoff after that), or failed at the cap. `None` when no lease has expired. Invariant: a crash costs an
/// attempt, so a step that kills its process stops; a lease renewed meanwhile is left alone.
///
/// # Errors
/// The database's.
pub async fn expire_one(pool: &PgPool, dice: f64) -> sqlx::Result<Option<StepId>> {
    let mut tx = pool.begin().await?;
    let expired: Option<Expired> =
        sqlx::query_as(include_str!("sql/expired.sql")).fetch_optional(&mut *tx).await?;
    let Some(expired) = expired else { return Ok(None) };
    let lease = Lease { step: expired.id, token: expired.lease_token };
    end_in(&mut tx, lease, &expired.ending(dice), true).await?;
    tx.commit().await?;
    Ok(Some(lease.step))
}

#[derive(sqlx::FromRow)]
struct Expired {
    id: StepId,
    lease_token: i64,
    attempt: i32,
    max_attempts: i32,
    backoff_base_ms: i64,
    backoff_cap_ms: i64,
    worker: String,
}

impl Expired {
    fn ending(&self, dice: f64) -> Ending {
        let error = format!(
            "worker {} stopped renewing its lease in attempt {} of {}",
            self.worker, self.attempt, self.max_attempts
        );
        if self.attempt >= self.max_attempts {
            return Ending::Failed { error };
        }
        let earlier = self.attempt.unsigned_abs().saturating_sub(1);
        let after = match earlier {
            0 => Duration::ZERO,
            losses => backoff(self.backoff_base_ms, self.backoff_cap_ms).delay(losses, dice),
        };
        Ending::Retry { after, error }
    }
}

/// **Sweep, stranded runs.** Fails runs of a version that no worker has known for `grace` while workers of another
/// version of the same workflow are at work. Returns how many. Invariant: old steps are never run by new code, and never
/// wait for ever.
///
/// # Errors
/// The database's.
pub async fn fail_stranded(pool: &PgPool, grace: Duration) -> sqlx::Result<usize> {
    let mut tx = pool.begin().await?;
    let stranded: Vec<(RunId, String, i32, Option<String>)> = sqlx::query_as(include_str!("sql/stranded.sql"))
        .bind(millis(grace))
        .fetch_all(&mut *tx)
        .await?;
    for (run, workflow, version, live) in &stranded {
        let error = format!(
            "no worker knows version {version} of workflow `{workflow}` any more (workers know: {}); start it again",
            live.as_deref().unwrap_or("none")
        );
        let step_sql = "update snapshots.step set done_at = now(), \
             state = case state when 'blocked' then 'skipped' else 'failed' end, \
             error = case state when 'blocked' then error else $2 end \
             where run_id = $1 and state in ('blocked', 'ready', 'waiting')";
        sqlx::query(step_sql).bind(run).bind(&error).execute(&mut *tx).await?;
        run_error(&mut tx, *run, &error).await?;
        settle(&mut tx, *run).await?;
    }
    tx.commit().await?;
    Ok(stranded.len())
}

/// **Cancel.** Asks running steps to stop (their next renewal says so) and ends all others. Invariant: nothing of the
/// run is claimed from here on; the run has ended when its last running step has. Safe to repeat: sweep does, for steps
/// that became ready in the same moment.
///
/// # Errors
/// The database's.
pub async fn cancel(pool: &PgPool, run: RunId) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    let run_sql = "update snapshots.run set cancel_requested_at = coalesce(cancel_requested_at, now()) \
         where id = $1 and state in ('queued', 'running', 'retrying', 'paused')";
    sqlx::query(run_sql).bind(run).execute(&mut *tx).await?;
    let steps_sql = "update snapshots.step set state = 'cancelled', done_at = now() \
         where run_id = $1 and state in ('blocked', 'ready', 'waiting')";
    sqlx::query(steps_sql).bind(run).execute(&mut *tx).await?;
    settle(&mut tx, run).await?;
    tx.commit().await
}

/// **Sweep, retrying.** Marks runs whose only open steps wait for their next attempt; all of them, or one.
///
/// # Errors
/// The database's.
pub async fn mark_retrying(db: impl sqlx::PgExecutor<'_>, run: Option<RunId>) -> sqlx::Result<()> {
    sqlx::query(include_str!("sql/mark_retrying.sql")).bind(run.map(|run| run.0)).execute(db).await?;
    Ok(())
}

/// Keeps a step's own small state from attempt to attempt, fenced like every write.
///
/// # Errors
/// The database's.
pub async fn save_checkpoint(pool: &PgPool, lease: Lease, state: &Value) -> sqlx::Result<Written> {
    let sql = "update snapshots.step set checkpoint = $3 where id = $1 and lease_token = $2 and state = 'running'";
    let done = sqlx::query(sql).bind(lease.step).bind(lease.token).bind(state).execute(pool).await?;
    Ok(if done.rows_affected() == 1 { Written::Done } else { Written::Fenced })
}

/// Writes a line of the job log.
///
/// # Errors
/// The database's.
pub async fn log(
    db: impl sqlx::PgExecutor<'_>,
    about: (RunId, Option<StepId>),
    level: Level,
    kind: &str,
    data: &Value,
) -> sqlx::Result<()> {
    sqlx::query("insert into snapshots.event (run_id, step_id, level, kind, data) values ($1, $2, $3, $4, $5)")
        .bind(about.0)
        .bind(about.1)
        .bind(level.as_str())
        .bind(kind)
        .bind(data)
        .execute(db)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Ended {
    id: StepId,
    run_id: RunId,
    group_id: Option<StepId>,
    name: String,
    state: StepState,
    queue: crate::model::Queue,
    priority: i32,
    attempt: i32,
    max_attempts: i32,
    run_at: DateTime<Utc>,
}

async fn end_in(tx: &mut PgConnection, lease: Lease, ending: &Ending, lost: bool) -> sqlx::Result<Written> {
    let (again, outcome, after, error) = match ending {
        Ending::Retry { after, error } => (true, if lost { "lost" } else { "retry" }, *after, Some(error)),
        Ending::Failed { error } => (false, if lost { "lost" } else { "failed" }, Duration::ZERO, Some(error)),
        Ending::Yielded { after } => (true, "yielded", *after, None),
    };
    let ended: Option<Ended> = sqlx::query_as(include_str!("sql/end.sql"))
        .bind(lease.step)
        .bind(lease.token)
        .bind(again)
        .bind(outcome)
        .bind(millis(after))
        .bind(error)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(ended) = ended else { return Ok(Written::Fenced) };
    log_end(tx, &ended, outcome, error).await?;
    match ended.state {
        StepState::Ready if after.is_zero() => {
            let ring = Ring { id: ended.id, queue: ended.queue, priority: ended.priority };
            doorbell::ring(tx, &[ring]).await?;
        }
        StepState::Ready => mark_retrying(&mut *tx, Some(ended.run_id)).await?,
        StepState::Failed => match ended.group_id {
            Some(group) => count_child(tx, ended.run_id, group, true).await?,
            None => {
                let error = format!("step `{}` failed: {}", ended.name, error.map_or("", String::as_str));
                failed(tx, ended.run_id, ended.id, &error).await?;
            }
        },
        _ => settle(tx, ended.run_id).await?,
    }
    notify(tx, ended.run_id).await?;
    Ok(Written::Done)
}

async fn log_end(tx: &mut PgConnection, ended: &Ended, outcome: &str, error: Option<&String>) -> sqlx::Result<()> {
    let level = match (ended.state, outcome) {
        (StepState::Failed, _) => Level::Error,
        (_, "yielded") | (StepState::Cancelled, _) => Level::Info,
        _ => Level::Warn,
    };
    let next = (ended.state == StepState::Ready).then_some(ended.run_at);
    let data = json!({
        "step": ended.name, "attempt": ended.attempt, "maxAttempts": ended.max_attempts,
        "error": error, "nextAttemptAt": next,
    });
    log(tx, (ended.run_id, Some(ended.id)), level, &format!("step.{outcome}"), &data).await
}

/// A task or a group has succeeded: its dependents may run, or the run is over.
async fn succeeded(tx: &mut PgConnection, run: RunId, step: StepId) -> sqlx::Result<()> {
    let rings: Vec<Ring> =
        sqlx::query_as(include_str!("sql/release.sql")).bind(step).fetch_all(&mut *tx).await?;
    doorbell::ring(tx, &rings).await?;
    if rings.is_empty() {
        settle(tx, run).await?;
    }
    notify(tx, run).await
}

/// A child has ended: the last one ends its group.
async fn count_child(tx: &mut PgConnection, run: RunId, group: StepId, failed: bool) -> sqlx::Result<()> {
    let sql = "update snapshots.step set children_left = children_left - 1, children_failed = children_failed + $2 \
         where id = $1 and state = 'waiting' returning children_left, children_failed";
    let counts: Option<(i32, i32)> =
        sqlx::query_as(sql).bind(group).bind(i32::from(failed)).fetch_optional(&mut *tx).await?;
    match counts {
        Some((0, failures)) => end_group(tx, run, group, failures).await,
        Some(_) => Ok(()),
        // The group was cancelled under its children; the last of them ends the run.
        None => settle(tx, run).await,
    }
}

async fn end_group(tx: &mut PgConnection, run: RunId, group: StepId, failures: i32) -> sqlx::Result<()> {
    if failures == 0 {
        let sql = "update snapshots.step set state = 'succeeded', done_at = now() where id = $1";
        sqlx::query(sql).bind(group).execute(&mut *tx).await?;
        return succeeded(tx, run, group).await;
    }
    let error: String =
        sqlx::query_scalar(include_str!("sql/fail_group.sql")).bind(group).fetch_one(&mut *tx).await?;
    log(&mut *tx, (run, Some(group)), Level::Error, "group.failed", &json!({ "error": error })).await?;
    failed(tx, run, group, &error).await
}

async fn failed(tx: &mut PgConnection, run: RunId, step: StepId, error: &str) -> sqlx::Result<()> {
    run_error(tx, run, error).await?;
    sqlx::query(include_str!("sql/skip_later.sql")).bind(step).execute(&mut *tx).await?;
    settle(tx, run).await
}

async fn run_error(tx: &mut PgConnection, run: RunId, error: &str) -> sqlx::Result<()> {
    let sql = "update snapshots.run set error = coalesce(error, $2) where id = $1";
    sqlx::query(sql).bind(run).bind(error).execute(tx).await?;
    Ok(())
}

/// Ends the run if nothing of it is unfinished. The lock comes first, in a statement of its own: of two last steps that
/// end at the same time the second one must see the first.
async fn settle(tx: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select 1 from snapshots.run where id = $1 for update").bind(run).execute(&mut *tx).await?;
    let state: Option<RunState> =
        sqlx::query_scalar(include_str!("sql/settle.sql")).bind(run).fetch_optional(&mut *tx).await?;
    if let Some(state) = state {
        let level = if state == RunState::Failed { Level::Error } else { Level::Info };
        log(&mut *tx, (run, None), level, &format!("run.{state}"), &json!({})).await?;
        notify(tx, run).await?;
    }
    Ok(())
}

/// The channel that carries the id of a run whenever it or one of its steps has moved.
pub(crate) const RUN_CHANNEL: &str = "snapshots_run";

async fn notify(tx: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(RUN_CHANNEL).bind(run.to_string()).execute(tx).await?;
    Ok(())
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A step's outputs of its predecessors, by name, in the order they were planned.
pub(crate) async fn inputs(pool: &PgPool, step: StepId) -> sqlx::Result<Vec<(String, Value)>> {
    sqlx::query_as(include_str!("sql/inputs.sql")).bind(step).fetch_all(pool).await
}

/// The output of a step of the run that has succeeded.
pub(crate) async fn output(pool: &PgPool, run: RunId, name: &str) -> sqlx::Result<Option<Value>> {
    sqlx::query_scalar(include_str!("sql/output.sql")).bind(run).bind(name).fetch_optional(pool).await
}

/// Runs that were asked to end and have not.
pub(crate) async fn cancelling(pool: &PgPool) -> sqlx::Result<Vec<RunId>> {
    let sql = "select id from snapshots.run where cancel_requested_at is not null \
         and state in ('queued', 'running', 'retrying', 'paused')";
    let ids: Vec<Uuid> = sqlx::query_scalar(sql).fetch_all(pool).await?;
    Ok(ids.into_iter().map(RunId).collect())
}

/// What the step saved last.
pub(crate) async fn checkpoint(pool: &PgPool, step: StepId) -> sqlx::Result<Option<Value>> {
    sqlx::query_scalar("select checkpoint from snapshots.step where id = $1").bind(step).fetch_one(pool).await
}
