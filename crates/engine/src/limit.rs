//! Limits on how many steps run at once over all machines: of one workflow, or of all.
//! Invariant: a running step that was claimed under a limit holds one of its slots, and a slot has one holder.
use std::fmt;

use serde::Serialize;
use serde_json::json;

use crate::{audit, client::Client, error::LimitError};

/// More at once than any database serves.
const MOST: u32 = 10_000;

/// What is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitTarget {
    /// All steps.
    Global,
    /// The steps of a workflow, by name.
    Workflow(String),
}

impl fmt::Display for LimitTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Workflow(name) => write!(f, "workflow {name}"),
        }
    }
}

/// A limit in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// `global` or `workflow <name>`.
    pub key: String,
    /// Steps that may run at once.
    pub slots: i64,
    /// Steps that run under it now.
    pub held: i64,
}

impl Client {
    /// Sets how many steps of the target may run at once, over all machines; `None` lifts the limit. What runs already
    /// goes on, above a lowered limit too.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub async fn set_limit(&self, target: &LimitTarget, slots: Option<u32>, actor: &str) -> Result<(), LimitError> {
        if let LimitTarget::Workflow(name) = target
            && self.catalog.get(name).is_none()
        {
            let known = self.catalog.names().collect::<Vec<_>>().join(", ");
            return Err(LimitError::UnknownWorkflow { name: name.clone(), known });
        }
        if let Some(slots) = slots
            && !(1..=MOST).contains(&slots)
        {
            return Err(LimitError::OutOfRange { slots });
        }
        let key = target.to_string();
        let slots = slots.unwrap_or(0).cast_signed();
        let mut tx = self.pool.begin().await?;
        let delete = "delete from snapshots.limit_slot where key = $1 and no >= $2";
        sqlx::query(delete).bind(&key).bind(slots).execute(&mut *tx).await?;
        let insert = "insert into snapshots.limit_slot (key, no) select $1, generate_series(0, $2 - 1) on conflict do nothing";
        sqlx::query(insert).bind(&key).bind(slots).execute(&mut *tx).await?;
        audit::record(&mut *tx, actor, ("limit.set", &key), &json!({ "slots": slots })).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Limits in force, by key.
    ///
    /// # Errors
    /// The database's.
    pub async fn limits(&self) -> sqlx::Result<Vec<Limit>> {
        let sql = "select key, count(*) as slots, count(holder) as held from snapshots.limit_slot group by key order by key";
        sqlx::query_as(sql).fetch_all(&self.pool).await
    }
}
