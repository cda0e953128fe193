//! Telling a worker to take no more work, and to take it again. The worker learns of it within a sweep, its running steps
//! within a renewal; steps that can give themselves back, unspent, the others go on to their end.
//! Invariant: claim looks at the worker's row itself, so a draining worker claims nothing from the moment this commits.
use serde_json::json;

use crate::{audit, client::Client, error::DrainError};

impl Client {
    /// Tells `worker` (its id in the ledger) to drain, or with `false` to go on.
    ///
    /// # Errors
    /// See [`DrainError`]; nothing was changed.
    pub async fn drain(&self, worker: &str, draining: bool, actor: &str) -> Result<(), DrainError> {
        let mut tx = self.pool.begin().await?;
        let sql = "update snapshots.worker set draining = $2 where id = $1";
        if sqlx::query(sql).bind(worker).bind(draining).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(DrainError::UnknownWorker { worker: worker.to_owned() });
        }
        let act = if draining { "worker.drain" } else { "worker.resume" };
        audit::record(&mut *tx, actor, (act, &format!("worker {worker}")), &json!({})).await?;
        tx.commit().await?;
        Ok(())
    }
}
