//! Starting a run once, however often it is asked for: idempotency keys.
//! Invariant: key and run are one transaction; of any number of requests with one key, at the same time or later, one
//! starts a run and the others are told which.
use serde_json::json;
use sqlx::PgConnection;

use crate::{
    audit,
    client::Client,
    error::{OnceError, StartError},
    model::RunId,
    start::StartRun,
};

/// A request as its sender named it.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency<'a> {
    /// Who asks: keys of others are other keys.
    pub principal: &'a str,
    /// Method and path: `POST /workflows/snapshot/runs`.
    pub request: &'a str,
    /// The sender's key, at most 255 bytes.
    pub key: &'a str,
    /// The request's body; only its SHA-256 is kept.
    pub body: &'a [u8],
}

/// A run that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// Whether an earlier request with the key had started it.
    pub replayed: bool,
}

/// Why an idempotency key cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key was used with another body.
    #[error("this idempotency key was used for another request, which started run {run}: use a new key")]
    Reused {
        /// What it started.
        run: RunId,
    },
    /// Empty or too long.
    #[error("an idempotency key must have 1 to 255 bytes")]
    Malformed,
    /// The ledger could not be written.
    #[error("cannot write the idempotency key to the control database")]
    Database(#[from] sqlx::Error),
}

impl Client {
    /// Starts a run on behalf of `actor`, unless the same request has: then nothing is changed and that run is returned.
    ///
    /// # Errors
    /// See [`OnceError`]; the key is then free as it was.
    pub async fn start_once(&self, request: &StartRun, key: Option<&Idempotency<'_>>, actor: &str) -> Result<Started, OnceError> {
        let mut tx = self.pool.begin().await.map_err(StartError::from)?;
        if let Some(run) = begun(&mut tx, key).await? {
            return Ok(Started { run, replayed: true });
        }
        let run = self.start_in(&mut tx, request).await?;
        keep(&mut tx, key, run).await?;
        let details = json!({ "workflow": request.workflow });
        audit::record(&mut *tx, actor, ("run.start", &run.to_string()), &details).await.map_err(StartError::from)?;
        tx.commit().await.map_err(StartError::from)?;
        Ok(Started { run, replayed: false })
    }
}

/// Takes the key, if there is one, waiting for another transaction that is about to; or finds the run it has started.
/// [`keep`] must follow in the same transaction.
pub(crate) async fn begun(tx: &mut PgConnection, key: Option<&Idempotency<'_>>) -> Result<Option<RunId>, KeyError> {
    let Some(wanted) = key else { return Ok(None) };
    if wanted.key.is_empty() || wanted.key.len() > 255 {
        return Err(KeyError::Malformed);
    }
    let insert = "insert into snapshots.idempotency_key (principal, request, key, body_sha256) \
         values ($1, $2, $3, sha256($4)) on conflict do nothing";
    let select = "select run_id, body_sha256 = sha256($4) from snapshots.idempotency_key \
         where principal = $1 and request = $2 and key = $3 and run_id is not null";
    loop {
        let insert = sqlx::query(insert).bind(wanted.principal).bind(wanted.request).bind(wanted.key).bind(wanted.body);
        if insert.execute(&mut *tx).await?.rows_affected() == 1 {
            return Ok(None);
        }
        let select = sqlx::query_as(select).bind(wanted.principal).bind(wanted.request).bind(wanted.key).bind(wanted.body);
        match select.fetch_optional(&mut *tx).await? {
            Some((run, true)) => return Ok(Some(run)),
            Some((run, false)) => return Err(KeyError::Reused { run }),
            // Retention took it between the two statements.
            None => {}
        }
    }
}

/// Remembers what the key has started.
pub(crate) async fn keep(tx: &mut PgConnection, key: Option<&Idempotency<'_>>, run: RunId) -> Result<(), KeyError> {
    let Some(wanted) = key else { return Ok(()) };
    let sql = "update snapshots.idempotency_key set run_id = $4 where principal = $1 and request = $2 and key = $3";
    sqlx::query(sql).bind(wanted.principal).bind(wanted.request).bind(wanted.key).bind(run).execute(tx).await?;
    Ok(())
}
