//! What operators do to runs: start one now, cancel, retry, find all that match. Who did it goes to the audit log.
//! Invariant: an act that is refused changes nothing; an act that is done is in the audit log.
use serde_json::json;
use sqlx::PgConnection;

use crate::{
    audit,
    client::Client,
    consequence,
    error::{CancelError, RetryError, StartError},
    model::{Level, RunId, RunState},
    once::{Idempotency, Started},
    queries::{self, RunCursor, RunFilter},
    retry::{self, RetryFrom},
    start::StartRun,
    statements,
};

/// How often an act that met a deadlock is tried. Cancelling takes the run before its steps, the end of a step takes
/// them the other way round; Postgres then ends one of the two.
const TRIES: u32 = 5;

impl Client {
    /// Starts a run on behalf of `actor`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn run_now(&self, request: &StartRun, actor: &str) -> Result<RunId, StartError> {
        let mut tx = self.pool.begin().await?;
        let run = self.start_in(&mut tx, request).await?;
        let details = json!({ "workflow": request.workflow });
        audit::record(&mut *tx, actor, ("run.start", &run.to_string()), &details).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Asks a run to end. What runs learns of it within a third of the lease; the run has ended when that has.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel(&self, run: RunId, actor: &str) -> Result<(), CancelError> {
        for _ in 1..TRIES {
            match self.cancel_once(run, actor).await {
                Err(CancelError::Database(error)) if is_deadlock(&error) => {}
                other => return other,
            }
        }
        self.cancel_once(run, actor).await
    }

    async fn cancel_once(&self, run: RunId, actor: &str) -> Result<(), CancelError> {
        let mut tx = self.pool.begin().await?;
        match lock_run(&mut tx, run).await? {
            None => return Err(CancelError::UnknownRun { run }),
            Some(state) if state.is_finished() => return Err(CancelError::Finished { run, state }),
            Some(_) => {}
        }
        consequence::log(&mut *tx, (run, None), Level::Info, "run.cancel", &json!({ "actor": actor })).await?;
        statements::cancel_in(&mut tx, run).await?;
        audit::record(&mut *tx, actor, ("run.cancel", &run.to_string()), &json!({})).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Does a run that has ended again: from its failed or cancelled steps under its own id, or from the start as a new
    /// run whose parent it is. Returns the id of the run that goes on. Attempts, events and outputs of before stay.
    ///
    /// # Errors
    /// See [`RetryError`].
    pub async fn retry(&self, run: RunId, from: RetryFrom, actor: &str) -> Result<RunId, RetryError> {
        Ok(self.retry_once(run, from, None, actor).await?.run)
    }

    /// As [`Client::retry`]; with a key that has retried it before, nothing is changed.
    ///
    /// # Errors
    /// See [`RetryError`].
    pub async fn retry_once(
        &self,
        run: RunId,
        from: RetryFrom,
        key: Option<&Idempotency<'_>>,
        actor: &str,
    ) -> Result<Started, RetryError> {
        let retried = retry::retry(self, run, from, key, actor).await;
        match retried {
            // Somebody started a run with the same key in the same moment.
            Err(RetryError::Database(error)) if is_conflict(&error, "run_one_unfinished") => {
                match retry::holder(&self.pool, run).await? {
                    Some(holder) => Err(StartError::AlreadyRunning { run: holder }.into()),
                    None => Err(RetryError::Database(error)),
                }
            }
            other => other,
        }
    }

    /// Runs that match the filter (its `after` is not looked at), oldest first, at most `limit`, beyond `after`: pages
    /// for acting on all of them, which neither repeat nor leave out a run while acting changes it.
    ///
    /// # Errors
    /// The database's.
    pub async fn matching(&self, filter: &RunFilter, after: Option<RunCursor>, limit: u32) -> sqlx::Result<Vec<RunCursor>> {
        queries::matching(&self.pool, filter, after, i64::from(limit)).await
    }
}

/// Holds the run's row until the transaction ends; `None` if there is no such run.
pub(crate) async fn lock_run(tx: &mut PgConnection, run: RunId) -> sqlx::Result<Option<RunState>> {
    sqlx::query_scalar("select state from snapshots.run where id = $1 for update").bind(run).fetch_optional(tx).await
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "40P01")
}

fn is_conflict(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::constraint) == Some(constraint)
}
