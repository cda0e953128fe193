//! Doing a run again. From its failed steps: the same run goes on, what succeeded is kept. From the start: a new run
//! with the same parameters, by today's code.
//! Invariant: history is only added to; a step that succeeded is never run again under the same run.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::{
    audit,
    client::Client,
    consequence, doorbell,
    error::{RetryError, StartError},
    model::{Level, Run, RunId, RunState, StepId, StepState},
    once::{self, Idempotency, Started},
    operations::lock_run,
    queries,
    start::{StartRun, start},
};

/// Where a retried run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryFrom {
    /// At the steps that failed or were cancelled, in the same run.
    FailedStep,
    /// At the start, in a new run.
    Start,
}

pub(crate) async fn retry(
    client: &Client,
    id: RunId,
    from: RetryFrom,
    key: Option<&Idempotency<'_>>,
    actor: &str,
) -> Result<Started, RetryError> {
    let mut tx = client.pool.begin().await?;
    if let Some(run) = once::begun(&mut tx, key).await? {
        return Ok(Started { run, replayed: true });
    }
    lock_run(&mut tx, id).await?.ok_or(RetryError::UnknownRun { run: id })?;
    let run = queries::run(&mut *tx, id).await?.ok_or(RetryError::UnknownRun { run: id })?;
    if !run.state.is_finished() {
        return Err(RetryError::NotFinished { run: id, state: run.state });
    }
    let retried = match from {
        RetryFrom::Start => again(client, &mut tx, &run).await?,
        RetryFrom::FailedStep => {
            check(client, &mut tx, &run).await?;
            go_on(&mut tx, &run, actor).await?;
            id
        }
    };
    once::keep(&mut tx, key, retried).await?;
    let details = json!({ "from": from, "run": retried, "state": run.state, "error": run.error });
    audit::record(&mut *tx, actor, ("run.retry", &id.to_string()), &details).await?;
    tx.commit().await?;
    Ok(Started { run: retried, replayed: false })
}

async fn again(client: &Client, tx: &mut PgConnection, run: &Run) -> Result<RunId, RetryError> {
    let request = StartRun {
        workflow: run.workflow.clone(),
        params: run.params.clone(),
        unique_key: run.unique_key.clone(),
        priority: run.priority,
        parent: Some(run.id),
    };
    Ok(start(tx, &client.catalog, &request, None).await?)
}

async fn check(client: &Client, tx: &mut PgConnection, run: &Run) -> Result<(), RetryError> {
    if run.state == RunState::Succeeded {
        return Err(RetryError::NothingFailed { run: run.id });
    }
    let known = client.catalog.get(&run.workflow).ok_or_else(|| client.catalog.unknown(&run.workflow))?;
    if !known.runs(run.version) {
        let (workflow, version) = (run.workflow.clone(), run.version);
        return Err(RetryError::OtherVersion { run: run.id, workflow, version });
    }
    match holder(tx, run.id).await? {
        Some(holder) => Err(StartError::AlreadyRunning { run: holder }.into()),
        None => Ok(()),
    }
}

/// The unfinished run that has the unique key of this one.
pub(crate) async fn holder(db: impl sqlx::PgExecutor<'_>, run: RunId) -> sqlx::Result<Option<RunId>> {
    let sql = "select o.id from snapshots.run r join snapshots.run o using (workflow, unique_key) \
         where r.id = $1 and o.id <> r.id and o.state in ('queued', 'running', 'retrying', 'paused')";
    sqlx::query_scalar(sql).bind(run).fetch_optional(db).await
}

#[derive(sqlx::FromRow)]
struct Reset {
    id: StepId,
    state: StepState,
    children_left: Option<i32>,
}

async fn go_on(tx: &mut PgConnection, run: &Run, actor: &str) -> sqlx::Result<()> {
    let reset: Vec<Reset> = sqlx::query_as(include_str!("sql/retry_steps.sql")).bind(run.id).fetch_all(&mut *tx).await?;
    let sql = "update snapshots.run set state = 'queued', error = null, cancel_requested_at = null, \
         next_attempt_at = null, done_at = null where id = $1";
    sqlx::query(sql).bind(run.id).execute(&mut *tx).await?;
    let data: Value = json!({
        "actor": actor, "steps": reset.len(), "state": run.state, "error": run.error, "doneAt": run.done_at,
    });
    consequence::log(&mut *tx, (run.id, None), Level::Info, "run.retry", &data).await?;
    let ready: Vec<StepId> = reset.iter().filter(|step| step.state == StepState::Ready).map(|step| step.id).collect();
    doorbell::ring(tx, &ready).await?;
    // A group that was cancelled while its last children still succeeded has nothing left to wait for.
    for group in reset.iter().filter(|step| step.state == StepState::Waiting && step.children_left == Some(0)) {
        consequence::end_group(tx, run.id, group.id).await?;
    }
    consequence::notify(tx, run.id).await
}
