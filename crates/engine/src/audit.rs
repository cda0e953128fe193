//! The audit log: every act of an operator, in the transaction of the act. It outlives the runs it speaks of.
//! Invariant: no act without its line, no line without its act.
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::client::Client;

/// One act.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What, as a dotted word: `run.retry`.
    pub act: String,
    /// To what: a run's id, `workflow <name>`, `queue <name>`, `schedule <name>`.
    pub subject: String,
    /// The rest, an object.
    pub details: Value,
}

/// Which acts to list.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only on this subject.
    pub subject: Option<String>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only older than the entry of this id.
    pub before: Option<i64>,
}

/// Writes a line; `what` is the act and its subject.
pub(crate) async fn record(db: impl sqlx::PgExecutor<'_>, actor: &str, what: (&str, &str), details: &Value) -> sqlx::Result<()> {
    sqlx::query("insert into snapshots.audit_log (actor, act, subject, details) values ($1, $2, $3, $4)")
        .bind(actor)
        .bind(what.0)
        .bind(what.1)
        .bind(details)
        .execute(db)
        .await?;
    Ok(())
}

impl Client {
    /// Acts of operators, newest first, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn audit_log(&self, filter: &AuditFilter, limit: u32) -> sqlx::Result<Vec<AuditEntry>> {
        let sql = "select id, at, actor, act, subject, details from snapshots.audit_log \
             where ($1::text is null or subject = $1) and ($2::text is null or actor = $2) \
               and ($3::bigint is null or id < $3) order by id desc limit $4";
        sqlx::query_as(sql)
            .bind(&filter.subject)
            .bind(&filter.actor)
            .bind(filter.before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
    }
}
