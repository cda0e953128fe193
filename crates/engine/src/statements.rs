//! The statements that carry the engine: claim, renew, complete (with `plan` for fan-outs), fail (`end`) and sweep, as Rust
//! calls them. What they do, and the invariant of each, is in `sql/statements.sql`; reading for people is `queries`' business.
//!
//! Invariant of all of them: a write about a step takes effect only where its lease token is the latest and the step is
//! `running`; what it sets off (dependents, doorbells, the run's end) commits with it or not at all. Each may be run
//! again after an unknown outcome: the second time it reports [`Written::Fenced`] and changes nothing.
use std::time::Duration;

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool, types::Json};

use crate::{
    consequence,
    model::{Queue, RunId, StepId, StepState},
};

pub use crate::attempt::{Claimant, Claimed, Ended, Ending, Lease, Renewed, Report, Swept, Written};

/// **Claim.** Takes a ready step whose time has come for `claimant`, opening an attempt; `None` means the doorbell was
/// stale.
///
/// # Errors
/// The database's.
pub async fn claim(pool: &PgPool, step: StepId, claimant: &Claimant) -> sqlx::Result<Option<Claimed>> {
    sqlx::query_as("select * from snapshots.claim($1, $2, $3, $4, $5)")
        .bind(step)
        .bind(&claimant.worker)
        .bind(millis(claimant.lease))
        .bind(&claimant.workflows)
        .bind(&claimant.versions)
        .fetch_optional(pool)
        .await
}

/// **Claim, many at once.** Takes up to `most` ready steps of a queue, the highest priority first; fewer mean that no more are
/// there.
///
/// # Errors
/// The database's. The claim may have taken effect all the same: see `unheard`, else the leases expire.
pub async fn claim_many(pool: &PgPool, queue: Queue, most: usize, claimant: &Claimant) -> sqlx::Result<Vec<Claimed>> {
    sqlx::query_as("select * from snapshots.claim_many($1, $2, $3, $4, $5, $6)")
        .bind(queue.as_str())
        .bind(i32::try_from(most).unwrap_or(i32::MAX))
        .bind(&claimant.worker)
        .bind(millis(claimant.lease))
        .bind(&claimant.workflows)
        .bind(&claimant.versions)
        .fetch_all(pool)
        .await
}

/// **Renew.** Extends the lease, stores what the attempt reports, and learns what is wanted of it: a cancellation, a pause
/// or a drain arrives within one renewal.
///
/// # Errors
/// The database's; the lease then runs on until it expires.
pub async fn renew(db: impl PgExecutor<'_>, lease: Lease, length: Duration, report: &Report) -> sqlx::Result<Renewed> {
    let wanted: Option<(bool, bool, bool)> =
        sqlx::query_as("select cancel, pause, drain from snapshots.renew($1, $2, $3, $4, $5)")
            .bind(lease.step)
            .bind(lease.token)
            .bind(millis(length))
            .bind(report.progress.as_ref().map(Json))
            .bind(report.log.as_ref().map(Json))
            .fetch_optional(db)
            .await?;
    Ok(match wanted {
        None => Renewed::Lost,
        Some((true, _, _)) => Renewed::CancelRequested,
        Some((_, _, true)) => Renewed::Draining,
        Some((_, true, _)) => Renewed::Paused,
        Some(_) => Renewed::Held,
    })
}

/// **Complete.** Stores a step's output and sets off what comes after it, in one transaction.
///
/// # Errors
/// The database's; the outcome is then unknown and calling again is right.
pub async fn complete(pool: &PgPool, lease: Lease, output: &Value, report: &Report) -> sqlx::Result<Written> {
    complete_with(pool, lease, Some(output), None, report).await
}

/// A step that was done.
#[derive(Debug)]
pub struct Finished {
    /// The right to say so.
    pub lease: Lease,
    /// What it returned.
    pub output: Value,
    /// What it says of itself.
    pub report: Report,
}

/// **Complete, many at once.** As [`complete`] for each, in one transaction.
///
/// # Errors
/// The database's; then each may be completed alone.
pub async fn complete_many(pool: &PgPool, finished: &[Finished]) -> sqlx::Result<Vec<Written>> {
    let done: Vec<bool> = sqlx::query_scalar("select snapshots.complete_many($1, $2, $3, $4, $5)")
        .bind(finished.iter().map(|step| step.lease.step).collect::<Vec<_>>())
        .bind(finished.iter().map(|step| step.lease.token).collect::<Vec<_>>())
        .bind(finished.iter().map(|step| &step.output).collect::<Vec<_>>())
        .bind(finished.iter().map(|step| step.report.progress.as_ref().map(Json)).collect::<Vec<_>>())
        .bind(finished.iter().map(|step| step.report.log.as_ref().map(Json)).collect::<Vec<_>>())
        .fetch_one(pool)
        .await?;
    Ok(done.into_iter().map(written).collect())
}

const fn written(done: bool) -> Written {
    if done { Written::Done } else { Written::Fenced }
}

/// **Plan** (complete, for a group). Makes one child per input, by index, rings for all of them, and leaves the group
/// waiting for their ends; without inputs the group has succeeded.
///
/// # Errors
/// The database's; the outcome is then unknown and calling again is right.
pub async fn plan(pool: &PgPool, lease: Lease, inputs: &[Value], report: &Report) -> sqlx::Result<Written> {
    complete_with(pool, lease, None, Some(inputs), report).await
}

async fn complete_with(
    pool: &PgPool,
    lease: Lease,
    output: Option<&Value>,
    children: Option<&[Value]>,
    report: &Report,
) -> sqlx::Result<Written> {
    let done: bool = sqlx::query_scalar("select snapshots.complete($1, $2, $3, $4, $5, $6)")
        .bind(lease.step)
        .bind(lease.token)
        .bind(output)
        .bind(children)
        .bind(report.progress.as_ref().map(Json))
        .bind(report.log.as_ref().map(Json))
        .fetch_one(pool)
        .await?;
    Ok(written(done))
}

/// **Fail** (and yield). Ends an attempt without success: the step is ready again later, or failed for good, or, its run
/// being cancelled, cancelled. `None`: fenced.
///
/// # Errors
/// The database's; the outcome is then unknown and calling again is right.
pub async fn end(pool: &PgPool, lease: Lease, ending: &Ending, report: &Report) -> sqlx::Result<Option<Ended>> {
    let (outcome, after, error) = match ending {
        Ending::Retry { after, error } => ("retry", *after, Some(error)),
        Ending::Failed { error } => ("failed", None, Some(error)),
        Ending::Yielded { after } => ("yielded", Some(*after), None),
    };
    let sql = "select state, (extract(epoch from next_attempt_at - now()) * 1000)::bigint \
         from snapshots.fail($1, $2, $3, $4, $5, $6, $7)";
    let ended: Option<(StepState, Option<i64>)> = sqlx::query_as(sql)
        .bind(lease.step)
        .bind(lease.token)
        .bind(outcome)
        .bind(after.map(millis))
        .bind(error)
        .bind(report.progress.as_ref().map(Json))
        .bind(report.log.as_ref().map(Json))
        .fetch_optional(pool)
        .await?;
    let wait = |millis: i64| Duration::from_millis(millis.max(0).unsigned_abs());
    Ok(ended.map(|(state, millis)| Ended { state, wait: millis.map(wait) }))
}

/// **Sweep.** Ends attempts whose lease expired (unless `expire` is false), rings for ready steps that nobody will hear of
/// otherwise (never rung for, longer than `lost_after` ago and the doorbell is gone, or the worker that fetched it has not
/// beaten for `gone_after`), and makes the words for the states of runs true. Must not be called in a transaction.
///
/// # Errors
/// The database's; what was mended before stays mended.
pub async fn sweep(
    db: impl sqlx::PgExecutor<'_>,
    expire: bool,
    lost_after: Duration,
    gone_after: Duration,
) -> sqlx::Result<Swept> {
    sqlx::query_as("call snapshots.sweep($1, $2, $3, null, null, null)")
        .bind(expire)
        .bind(millis(lost_after))
        .bind(millis(gone_after))
        .fetch_one(db)
        .await
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
        let run_sql = "update snapshots.run set error = coalesce(error, $2) where id = $1";
        sqlx::query(run_sql).bind(run).bind(&error).execute(&mut *tx).await?;
        consequence::settle(&mut tx, *run).await?;
    }
    tx.commit().await?;
    Ok(stranded.len())
}

/// **Cancel.** Asks running steps to stop (their next renewal says so) and ends all others.
///
/// # Errors
/// The database's.
pub async fn cancel(pool: &PgPool, run: RunId) -> sqlx::Result<()> {
    cancel_in(&mut *pool.acquire().await?, run).await
}

pub(crate) async fn cancel_in(conn: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select snapshots.cancel($1)").bind(run).execute(conn).await?;
    Ok(())
}

/// Makes the state of runs say whether they are held: `paused` when none of their steps runs, and their workflow is paused or
/// the queue of each step that is ready; else what they were. Sweep does it too. Invariant: changes nothing but the word; claim looks at the pause itself.
///
/// # Errors
/// The database's.
pub async fn mark_paused(db: impl sqlx::PgExecutor<'_>) -> sqlx::Result<()> {
    sqlx::query("select snapshots.mark_paused()").execute(db).await?;
    Ok(())
}

/// Keeps a step's own small state from attempt to attempt, fenced like every write.
///
/// # Errors
/// The database's.
pub async fn save_checkpoint(pool: &PgPool, lease: Lease, state: &Value) -> sqlx::Result<Written> {
    let sql = "update snapshots.step set checkpoint = $3 where id = $1 and lease_token = $2 and state = 'running'";
    let done = sqlx::query(sql).bind(lease.step).bind(lease.token).bind(state).execute(pool).await?;
    Ok(written(done.rows_affected() == 1))
}

/// Whether the database will never take what it was sent: a value of the wrong kind (SQLSTATE class 22; NUL in a text of
/// `jsonb`) or a larger one than it can store (class 54).
pub(crate) fn cannot_hold(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(error, sqlx::Error::Encode(_)) || code.is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
