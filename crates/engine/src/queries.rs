//! Reading the ledger: lists, details and logs for people, inputs and outputs for steps. Changes nothing.
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};

use crate::model::{Attempt, Event, Run, RunDetail, RunId, RunState, Step, StepId};

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this workflow's.
    pub workflow: Option<String>,
    /// Only in one of these states; empty means any.
    pub states: Vec<RunState>,
    /// Only asked for at or after this.
    pub since: Option<DateTime<Utc>>,
    /// Only asked for before this.
    pub until: Option<DateTime<Utc>>,
    /// Only with this text in their id, unique key, error or parameters, whatever its case. A list looks for it in the newest
    /// 10,000 runs that match otherwise.
    pub text: Option<String>,
    /// Only after this run in the list, which is newest first.
    pub after: Option<RunCursor>,
}

/// The place of a run in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct RunCursor {
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: RunId,
}

/// What a filter says, but its text and its place in the list; binds `$1` to `$4`.
const MATCHES: &str = "($1::text is null or workflow = $1) and (cardinality($2::text[]) = 0 or state = any($2)) \
     and ($3::timestamptz is null or created_at >= $3) and ($4::timestamptz is null or created_at < $4)";

/// Whether a run has the text `$5`, whatever its case.
const HAS_TEXT: &str =
    "($5::text is null or position(lower($5) in lower(concat_ws(' ', id::text, unique_key, error, params::text))) > 0)";

/// A text is looked for in so many runs that match otherwise: no index helps, and a page must not read them all.
const TEXT_WINDOW: i64 = 10_000;

const RUN: &str = "id, workflow, version, params, unique_key, priority, state, next_attempt_at, parent_run_id, \
     cancel_requested_at, error, schedule, fire_at, created_at, started_at, done_at";

/// Newest first; with a text, those of the newest [`TEXT_WINDOW`] that have it. Planned for each filter anew, since one plan
/// for all of them walks the whole list; each wanted state is a walk of its own along an index.
pub(crate) async fn runs(db: impl PgExecutor<'_>, filter: &RunFilter, limit: i64) -> sqlx::Result<Vec<Run>> {
    let order = "order by created_at desc, id desc limit";
    let (each_state, of_state) = match filter.states.is_empty() {
        true => ("", ""),
        false => ("unnest($2::text[]) as wanted (state) cross join lateral", "state = wanted.state and"),
    };
    let sql = format!(
        "select {RUN} from (select found.* from {each_state} (select * from snapshots.run where {of_state} {MATCHES} \
         and ($6::timestamptz is null or (created_at, id) < ($6, $7)) {order} $9) found {order} $9) run \
         where {HAS_TEXT} {order} $8"
    );
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&filter.workflow)
        .bind(states)
        .bind(filter.since)
        .bind(filter.until)
        .bind(&filter.text)
        .bind(filter.after.map(|cursor| cursor.created_at))
        .bind(filter.after.map(|cursor| cursor.id.0))
        .bind(limit)
        .bind(if filter.text.is_some() { TEXT_WINDOW } else { limit })
        .persistent(false)
        .fetch_all(db)
        .await
}

/// Ids of matching runs, oldest first: what is started while one walks comes last, so nothing is met twice.
pub(crate) async fn matching(
    db: impl PgExecutor<'_>,
    filter: &RunFilter,
    after: Option<RunCursor>,
    limit: i64,
) -> sqlx::Result<Vec<RunCursor>> {
    let sql = format!(
        "select created_at, id from snapshots.run where {MATCHES} and {HAS_TEXT} \
         and ($6::timestamptz is null or (created_at, id) > ($6, $7)) order by created_at, id limit $8"
    );
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&filter.workflow)
        .bind(states)
        .bind(filter.since)
        .bind(filter.until)
        .bind(&filter.text)
        .bind(after.map(|cursor| cursor.created_at))
        .bind(after.map(|cursor| cursor.id.0))
        .bind(limit)
        .fetch_all(db)
        .await
}

pub(crate) async fn run(db: impl PgExecutor<'_>, run: RunId) -> sqlx::Result<Option<Run>> {
    let sql = format!("select {RUN} from snapshots.run where id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run).fetch_optional(db).await
}

pub(crate) async fn detail(pool: &PgPool, id: RunId) -> sqlx::Result<Option<RunDetail>> {
    let Some(run) = run(pool, id).await? else { return Ok(None) };
    let steps: Vec<Step> = sqlx::query_as(
        "select id, run_id, name, kind, index, state, coalesce(q.queue, step.queue) as queue, children_total, children_left, \
         children_failed, attempt, max_attempts, run_at, case when state = 'ready' and attempt > 0 then run_at end as next_attempt_at, \
         lease_until, worker, progress, output, error, started_at, done_at \
         from snapshots.step left join snapshots.queue_name q on q.former = step.queue where run_id = $1 order by coalesce(group_id, id), kind <> 'child' desc, index",
    )
    .bind(id)
    .fetch_all(pool)
    .await?;
    let attempts: Vec<Attempt> = sqlx::query_as(
        "select a.step_id, a.no, a.worker, a.started_at, a.done_at, a.outcome, a.error, a.log, a.trace_id, \
             (extract(epoch from coalesce(a.done_at, now()) - a.started_at) * 1000)::bigint as duration_ms, \
             case when a.done_at is null then s.progress else a.progress end as progress \
         from snapshots.attempt a join snapshots.step s on s.id = a.step_id \
         where s.run_id = $1 order by a.lease_token",
    )
    .bind(id)
    .fetch_all(pool)
    .await?;
    Ok(Some(RunDetail { run, steps, attempts }))
}

pub(crate) async fn events(db: impl PgExecutor<'_>, run: RunId, after: i64, limit: i64) -> sqlx::Result<Vec<Event>> {
    let sql = "select id, run_id, step_id, at, level, kind, data from snapshots.event \
         where run_id = $1 and id > $2 order by id limit $3";
    sqlx::query_as(sql).bind(run).bind(after).bind(limit).fetch_all(db).await
}

/// The output of a step of the run that has succeeded, under whichever of its names.
pub(crate) async fn output(pool: &PgPool, run: RunId, names: &[&str]) -> sqlx::Result<Option<Value>> {
    sqlx::query_scalar(include_str!("sql/output.sql")).bind(run).bind(names).fetch_optional(pool).await
}

/// What the step saved last.
pub(crate) async fn checkpoint(pool: &PgPool, step: StepId) -> sqlx::Result<Option<Value>> {
    sqlx::query_scalar("select checkpoint from snapshots.step where id = $1").bind(step).fetch_one(pool).await
}
