//! Starting a run once, however often it is asked for: idempotency keys.
//! Invariant: key and run are one transaction; of any number of requests with one key, at the same time or later, one
//! starts a run and the others are told which.
use serde_json::json;
use sqlx::PgConnection;

use crate::{audit, client::Client, error::OnceError, model::RunId, start::StartRun};

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

/// A run that was asked for with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// Whether an earlier request with the key had started it.
    pub replayed: bool,
}

impl Client {
    /// Starts a run on behalf of `actor`, unless the same request has: then nothing is changed and that run is returned.
    ///
    /// # Errors
    /// See [`OnceError`]; the key is then free as it was.
    pub async fn start_once(&self, request: &StartRun, idempotency: &Idempotency<'_>, actor: &str) -> Result<Started, OnceError> {
        if idempotency.key.is_empty() || idempotency.key.len() > 255 {
            return Err(OnceError::BadKey);
        }
        let mut tx = self.pool.begin().await?;
        if let Some(run) = take(&mut tx, idempotency).await? {
            return Ok(Started { run, replayed: true });
        }
        let run = self.start_in(&mut tx, request).await?;
        let sql = "update snapshots.idempotency_key set run_id = $4 where principal = $1 and request = $2 and key = $3";
        sqlx::query(sql)
            .bind(idempotency.principal)
            .bind(idempotency.request)
            .bind(idempotency.key)
            .bind(run)
            .execute(&mut *tx)
            .await?;
        let details = json!({ "workflow": request.workflow });
        audit::record(&mut *tx, actor, ("run.start", &run.to_string()), &details).await?;
        tx.commit().await?;
        Ok(Started { run, replayed: false })
    }
}

/// Takes the key, waiting for another transaction that is about to; or finds the run it has started.
async fn take(tx: &mut PgConnection, wanted: &Idempotency<'_>) -> Result<Option<RunId>, OnceError> {
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
            Some((run, false)) => return Err(OnceError::KeyReused { run }),
            // Retention took it between the two statements.
            None => {}
        }
    }
}
