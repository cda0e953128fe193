//! Pausing a workflow or a queue: nothing of it is claimed until it is resumed, on any machine. What runs goes on.
//! Invariant: claim reads the pause itself; the state `paused` of a run is only what people see of it.
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;

use crate::{audit, client::Client, error::PauseError, model::Queue, statements};

/// What may be paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseTarget {
    /// All runs of a workflow, by name.
    Workflow(String),
    /// All steps of a queue.
    Queue(Queue),
}

impl PauseTarget {
    fn kind(&self) -> &'static str {
        match self {
            Self::Workflow(_) => "workflow",
            Self::Queue(_) => "queue",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Workflow(name) => name,
            Self::Queue(queue) => queue.as_str(),
        }
    }
}

impl fmt::Display for PauseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// A pause in force.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// `workflow` or `queue`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Who paused it.
    pub actor: String,
    /// Since when.
    pub at: DateTime<Utc>,
}

impl Client {
    /// Stops claiming steps of the target.
    ///
    /// # Errors
    /// See [`PauseError`].
    pub async fn pause(&self, target: &PauseTarget, reason: &str, actor: &str) -> Result<(), PauseError> {
        if let PauseTarget::Workflow(name) = target
            && self.catalog.get(name).is_none()
        {
            let known = self.catalog.names().collect::<Vec<_>>().join(", ");
            return Err(PauseError::UnknownWorkflow { name: name.clone(), known });
        }
        let mut tx = self.pool.begin().await?;
        let insert = "insert into snapshots.pause (kind, name, reason, actor) values ($1, $2, $3, $4) on conflict do nothing";
        let insert = sqlx::query(insert).bind(target.kind()).bind(target.name()).bind(reason).bind(actor);
        if insert.execute(&mut *tx).await?.rows_affected() == 0 {
            let sql = "select reason from snapshots.pause where kind = $1 and name = $2";
            let found = sqlx::query_scalar(sql).bind(target.kind()).bind(target.name()).fetch_optional(&mut *tx).await?;
            return Err(PauseError::AlreadyPaused { target: target.to_string(), reason: found.unwrap_or_default() });
        }
        let act = format!("{}.pause", target.kind());
        audit::record(&mut *tx, actor, (&act, &target.to_string()), &json!({ "reason": reason })).await?;
        statements::mark_paused(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Lets the target go on; its ready steps are rung for by the next sweep.
    ///
    /// # Errors
    /// See [`PauseError`].
    pub async fn resume(&self, target: &PauseTarget, actor: &str) -> Result<(), PauseError> {
        let mut tx = self.pool.begin().await?;
        let sql = "delete from snapshots.pause where kind = $1 and name = $2 returning reason";
        let reason: Option<String> =
            sqlx::query_scalar(sql).bind(target.kind()).bind(target.name()).fetch_optional(&mut *tx).await?;
        let Some(reason) = reason else { return Err(PauseError::NotPaused { target: target.to_string() }) };
        let act = format!("{}.resume", target.kind());
        audit::record(&mut *tx, actor, (&act, &target.to_string()), &json!({ "reason": reason })).await?;
        statements::mark_paused(&mut *tx).await?;
        // Doorbells that came meanwhile were answered with nothing.
        let unheard = "update snapshots.step s set doorbell = null, rang_at = null from snapshots.run r \
             where r.id = s.run_id and s.state = 'ready' \
               and case $1 when 'workflow' then r.workflow else s.queue end = $2";
        sqlx::query(unheard).bind(target.kind()).bind(target.name()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Pauses in force, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn pauses(&self) -> sqlx::Result<Vec<Pause>> {
        sqlx::query_as("select kind, name, reason, actor, at from snapshots.pause order by at, kind, name")
            .fetch_all(&self.pool)
            .await
    }
}
