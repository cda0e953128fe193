//! The statements that carry the engine: claim, renew, complete (with `plan` for fan-outs), end, and what sweep needs.
//! SQL lives beside this file, one statement a file; reading for people is `queries`' business.
//!
//! Invariant of all of them: a write about a step takes effect only where its lease token is the latest and the step is
//! `running`; what it sets off (dependents, doorbells, the run's end) commits with it or not at all. Each may be run
//! again after an unknown outcome: the second time it reports [`Written::Fenced`] and changes nothing.
use std::time::Duration;

use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::{
    attempt::Expired,
    consequence::{self, Ended},
    doorbell::{self, Ring},
    model::{Progress, RunId, StepId, StepState},
};

pub use crate::attempt::{Claimant, Claimed, Ending, Lease, Renewed, Written};

/// **Claim.** Takes a ready step whose time has come for `claimant`, opening an attempt; `None` means the doorbell was
/// stale. Invariant: of any number of claims of one ready step one succeeds; a step of a workflow or version the
/// claimant does not know, of a paused, cancelled or finished run, out of
/// attempts, or beyond a limit, is never claimed. An expired
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

/// Notes that a step waits for a slot of a limit, after a claim that took nothing: the next end of a step under the
/// limit, or sweep, rings for it. Does nothing to a step without a limit.
///
/// # Errors
/// The database's.
pub async fn await_slot(pool: &PgPool, step: StepId) -> sqlx::Result<()> {
    sqlx::query(include_str!("sql/await_slot.sql")).bind(step).execute(pool).await?;
    Ok(())
}

/// **Renew.** Extends the lease and stores progress. Invariant: only the latest holder renews, and a holder learns of a
/// cancellation within one renewal.
///
/// # Errors
/// The database's; the lease then runs on until it expires.
pub async fn renew(pool: &PgPool, lease: Lease, length: Duration, progress: Option<&Progress>) -> sqlx::Result<Renewed> {
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
pub async fn complete(pool: &PgPool, lease: Lease, output: &Value, progress: Option<&Progress>) -> sqlx::Result<Written> {
    let mut tx = pool.begin().await?;
    let done: Option<(RunId, Option<StepId>, bool)> = sqlx::query_as(include_str!("sql/complete.sql"))
        .bind(lease.step)
        .bind(lease.token)
        .bind(output)
        .bind(progress.map(sqlx::types::Json))
        .fetch_optional(&mut *tx)
        .await?;
    let Some((run, group, freed)) = done else { return Ok(Written::Fenced) };
    match group {
        Some(group) => consequence::count_child(&mut tx, run, group, false).await?,
        None => consequence::succeeded(&mut tx, run, lease.step).await?,
    }
    if freed {
        consequence::pass_slot(&mut tx).await?;
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
    let planned: Option<(RunId, bool)> = sqlx::query_as(include_str!("sql/plan_children.sql"))
        .bind(lease.step)
        .bind(lease.token)
        .bind(count)
        .fetch_optional(&mut *tx)
        .await?;
    let Some((run, freed)) = planned else { return Ok(Written::Fenced) };
    let rings: Vec<Ring> =
        sqlx::query_as(include_str!("sql/insert_children.sql")).bind(lease.step).bind(inputs).fetch_all(&mut *tx).await?;
    doorbell::ring(&mut tx, &rings).await?;
    if count == 0 {
        consequence::end_group(&mut tx, run, lease.step, 0).await?;
    }
    if freed {
        consequence::pass_slot(&mut tx).await?;
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
    let expired: Option<Expired> = sqlx::query_as(include_str!("sql/expired.sql")).fetch_optional(&mut *tx).await?;
    let Some(expired) = expired else { return Ok(None) };
    let lease = Lease { step: expired.id, token: expired.lease_token };
    end_in(&mut tx, lease, &expired.ending(dice), true).await?;
    tx.commit().await?;
    Ok(Some(lease.step))
}

/// **Sweep, stranded runs.** Fails runs of a version that no worker has known for `grace` while workers of another
/// version of the same workflow are at work. Returns how many. Invariant: old steps are never run by new code, and never
/// wait for ever.
///
/// # Errors
/// The database's.
pub async fn fail_stranded(pool: &PgPool, grace: Duration) -> sqlx::Result<usize> {
    let mut tx = pool.begin().await?;
    let stranded: Vec<(RunId, String, i32, Option<String>)> =
        sqlx::query_as(include_str!("sql/stranded.sql")).bind(millis(grace)).fetch_all(&mut *tx).await?;
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
        consequence::run_error(&mut tx, *run, &error).await?;
        consequence::settle(&mut tx, *run).await?;
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
    cancel_in(&mut tx, run).await?;
    tx.commit().await
}

pub(crate) async fn cancel_in(tx: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    let run_sql = "update snapshots.run set cancel_requested_at = coalesce(cancel_requested_at, now()) \
         where id = $1 and state in ('queued', 'running', 'retrying', 'paused')";
    sqlx::query(run_sql).bind(run).execute(&mut *tx).await?;
    let steps_sql = "update snapshots.step set state = 'cancelled', done_at = now() \
         where run_id = $1 and state in ('blocked', 'ready', 'waiting')";
    sqlx::query(steps_sql).bind(run).execute(&mut *tx).await?;
    consequence::settle(tx, run).await
}

/// **Sweep, pauses.** Makes the state of runs say whether their workflow is paused: `paused` when it is and none of
/// their steps runs, else what they were. Invariant: changes nothing but the word; claim looks at the pause itself.
///
/// # Errors
/// The database's.
pub async fn mark_paused(db: impl sqlx::PgExecutor<'_>) -> sqlx::Result<()> {
    sqlx::query(include_str!("sql/mark_paused.sql")).execute(db).await?;
    Ok(())
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
    consequence::log_end(tx, &ended, outcome, error).await?;
    follow(tx, &ended, after, error).await?;
    if ended.freed {
        consequence::pass_slot(tx).await?;
    }
    consequence::notify(tx, ended.run_id).await?;
    Ok(Written::Done)
}

async fn follow(tx: &mut PgConnection, ended: &Ended, after: Duration, error: Option<&String>) -> sqlx::Result<()> {
    match ended.state {
        StepState::Ready if after.is_zero() => {
            let ring = Ring { id: ended.id, queue: ended.queue, priority: ended.priority };
            doorbell::ring(tx, &[ring]).await
        }
        StepState::Ready => mark_retrying(&mut *tx, Some(ended.run_id)).await,
        StepState::Failed => match ended.group_id {
            Some(group) => consequence::count_child(tx, ended.run_id, group, true).await,
            None => {
                let error = format!("step `{}` failed: {}", ended.name, error.map_or("", String::as_str));
                consequence::failed(tx, ended.run_id, ended.id, &error).await
            }
        },
        _ => consequence::settle(tx, ended.run_id).await,
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
