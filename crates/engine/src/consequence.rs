//! What follows from a step's end, inside the transaction that ends it: dependents, groups, the run, the log.
//! Deciding that a step has ended is `statements`' business. Invariant: callers hold the step's fence, so each of these
//! runs once for each end.
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::{
    doorbell::{self, Ring},
    model::{Level, Queue, RunId, RunState, StepId, StepState},
};

/// Writes a line of the job log.
///
/// # Errors
/// The database's.
pub(crate) async fn log(
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

/// A step's row just after an attempt ended without success.
#[derive(sqlx::FromRow)]
pub(crate) struct Ended {
    pub(crate) id: StepId,
    pub(crate) run_id: RunId,
    pub(crate) group_id: Option<StepId>,
    pub(crate) name: String,
    pub(crate) state: StepState,
    pub(crate) queue: Queue,
    pub(crate) priority: i32,
    pub(crate) attempt: i32,
    pub(crate) max_attempts: i32,
    pub(crate) run_at: DateTime<Utc>,
    /// Whether it held a slot of a limit.
    pub(crate) freed: bool,
}

pub(crate) async fn log_end(tx: &mut PgConnection, ended: &Ended, outcome: &str, error: Option<&String>) -> sqlx::Result<()> {
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
pub(crate) async fn succeeded(tx: &mut PgConnection, run: RunId, step: StepId) -> sqlx::Result<()> {
    let rings: Vec<Ring> = sqlx::query_as(include_str!("sql/release.sql")).bind(step).fetch_all(&mut *tx).await?;
    doorbell::ring(tx, &rings).await?;
    if rings.is_empty() {
        settle(tx, run).await?;
    }
    notify(tx, run).await
}

/// A slot of a limit is free: rings for the step that has waited for one longest among those of the highest priority.
pub(crate) async fn pass_slot(tx: &mut PgConnection) -> sqlx::Result<()> {
    let next: Vec<Ring> = sqlx::query_as(include_str!("sql/next_for_slot.sql")).fetch_all(&mut *tx).await?;
    doorbell::ring(tx, &next).await
}

/// A child has ended: the last one ends its group.
pub(crate) async fn count_child(tx: &mut PgConnection, run: RunId, group: StepId, failed: bool) -> sqlx::Result<()> {
    let sql = "update snapshots.step set children_left = children_left - 1, children_failed = children_failed + $2 \
         where id = $1 and state = 'waiting' returning children_left, children_failed";
    let counts: Option<(i32, i32)> = sqlx::query_as(sql).bind(group).bind(i32::from(failed)).fetch_optional(&mut *tx).await?;
    match counts {
        Some((0, failures)) => end_group(tx, run, group, failures).await,
        Some(_) => Ok(()),
        // The group was cancelled under its children; the last of them ends the run.
        None => settle(tx, run).await,
    }
}

pub(crate) async fn end_group(tx: &mut PgConnection, run: RunId, group: StepId, failures: i32) -> sqlx::Result<()> {
    if failures == 0 {
        let sql = "update snapshots.step set state = 'succeeded', done_at = now() where id = $1";
        sqlx::query(sql).bind(group).execute(&mut *tx).await?;
        return succeeded(tx, run, group).await;
    }
    let error: String = sqlx::query_scalar(include_str!("sql/fail_group.sql")).bind(group).fetch_one(&mut *tx).await?;
    log(&mut *tx, (run, Some(group)), Level::Error, "group.failed", &json!({ "error": error })).await?;
    failed(tx, run, group, &error).await
}

pub(crate) async fn failed(tx: &mut PgConnection, run: RunId, step: StepId, error: &str) -> sqlx::Result<()> {
    run_error(tx, run, error).await?;
    sqlx::query(include_str!("sql/skip_later.sql")).bind(step).execute(&mut *tx).await?;
    settle(tx, run).await
}

pub(crate) async fn run_error(tx: &mut PgConnection, run: RunId, error: &str) -> sqlx::Result<()> {
    let sql = "update snapshots.run set error = coalesce(error, $2) where id = $1";
    sqlx::query(sql).bind(run).bind(error).execute(tx).await?;
    Ok(())
}

/// Ends the run if nothing of it is unfinished. The lock comes first, in a statement of its own: of two last steps that
/// end at the same time the second one must see the first.
pub(crate) async fn settle(tx: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select 1 from snapshots.run where id = $1 for update").bind(run).execute(&mut *tx).await?;
    let state: Option<RunState> = sqlx::query_scalar(include_str!("sql/settle.sql")).bind(run).fetch_optional(&mut *tx).await?;
    if let Some(state) = state {
        let level = if state == RunState::Failed { Level::Error } else { Level::Info };
        log(&mut *tx, (run, None), level, &format!("run.{state}"), &json!({})).await?;
        notify(tx, run).await?;
    }
    Ok(())
}

/// The channel that carries the id of a run whenever it or one of its steps has moved.
pub(crate) const RUN_CHANNEL: &str = "snapshots_run";

pub(crate) async fn notify(tx: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(RUN_CHANNEL).bind(run.to_string()).execute(tx).await?;
    Ok(())
}
