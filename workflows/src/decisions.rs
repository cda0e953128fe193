//! What people decided about snapshots, each with its line in the audit log in the same transaction.

use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::publication::Decision;

/// Takes a snapshot out of the lists. A second attempt of the same run changes nothing.
///
/// # Errors
/// The database's.
pub(crate) async fn retract(db: &PgPool, network: &str, decision: &Decision, run: Uuid) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    let sql = "update snapshots.snapshot set state = 'retracted', retracted_at = now(), retract_reason = $3
               where network = $1 and id = $2 and state = 'published'";
    let done = sqlx::query(sql).bind(network).bind(&decision.id).bind(&decision.reason).execute(&mut *tx).await?;
    if done.rows_affected() > 0 {
        log(&mut tx, network, ("snapshot.retract", decision), run).await?;
    }
    tx.commit().await
}

/// Lists a snapshot again; false where it has expired meanwhile. A second attempt of the same run changes nothing.
///
/// # Errors
/// The database's.
pub(crate) async fn publish(db: &PgPool, network: &str, decision: &Decision, run: Uuid) -> sqlx::Result<bool> {
    let mut tx = db.begin().await?;
    let sql = "update snapshots.snapshot set state = 'published', retracted_at = null, retract_reason = null
               where network = $1 and id = $2 and state in ('published', 'retracted')";
    let done = sqlx::query(sql).bind(network).bind(&decision.id).execute(&mut *tx).await?;
    if done.rows_affected() > 0 {
        log(&mut tx, network, ("snapshot.publish", decision), run).await?;
    }
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Keeps a snapshot from being pruned, or no longer (`reason` is `None`). False where there is no such snapshot.
///
/// # Errors
/// The database's.
pub async fn pin(db: &PgPool, snapshot: (&str, &str), reason: Option<&str>, actor: &str) -> sqlx::Result<bool> {
    let mut tx = db.begin().await?;
    let sql = "update snapshots.snapshot set pin_reason = $3
               where network = $1 and id = $2 and state in ('published', 'retracted')";
    let done = sqlx::query(sql).bind(snapshot.0).bind(snapshot.1).bind(reason).execute(&mut *tx).await?;
    let act = if reason.is_some() { "snapshot.pin" } else { "snapshot.unpin" };
    if done.rows_affected() > 0 {
        sqlx::query("insert into snapshots.audit_log (actor, act, subject, details) values ($1, $2, $3, $4)")
            .bind(actor)
            .bind(act)
            .bind(format!("snapshot {}/{}", snapshot.0, snapshot.1))
            .bind(json!({ "reason": reason }))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// One line a run, however often its step is tried.
async fn log(tx: &mut PgConnection, network: &str, act: (&str, &Decision), run: Uuid) -> sqlx::Result<()> {
    let (name, decision) = act;
    sqlx::query(
        "insert into snapshots.audit_log (actor, act, subject, details)
         select $1, $2, $3, $4 where not exists (select from snapshots.audit_log where act = $2 and subject = $3 and details ->> 'run' = $5)",
    )
    .bind(decision.actor.as_deref().unwrap_or("unknown"))
    .bind(name)
    .bind(format!("snapshot {network}/{}", decision.id))
    .bind(json!({ "reason": decision.reason, "run": run, "back": decision.back }))
    .bind(run.to_string())
    .execute(tx)
    .await?;
    Ok(())
}
