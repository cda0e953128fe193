//! What follows from an act, inside its transaction: the log, the run's end, the word to those who watch. What follows
//! from a step's end is in `sql/consequences.sql`.
use serde_json::Value;
use sqlx::PgConnection;

use crate::model::{Level, RunId, StepId};

/// The channel that carries the id of a run whenever it or one of its steps has moved.
pub(crate) const RUN_CHANNEL: &str = "snapshots_run";

/// Writes a line of the job log.
///
/// # Errors
/// The database's.
pub(crate) async fn log(
    db: impl sqlx::PgExecutor<'_>,
    about: (RunId, Option<StepId>),
    level: Level,
    kind: &str,
    data: &Value,
) -> sqlx::Result<()> {
    sqlx::query("insert into snapshots.event (run_id, step_id, level, kind, data) values ($1, $2, $3, $4, $5)")
        .bind(about.0)
        .bind(about.1)
        .bind(level.as_str())
        .bind(kind)
        .bind(data)
        .execute(db)
        .await?;
    Ok(())
}

/// Ends a group whose children have all succeeded.
pub(crate) async fn end_group(conn: &mut PgConnection, run: RunId, group: StepId) -> sqlx::Result<()> {
    sqlx::query("select snapshots.end_group($1, $2, 0)").bind(run).bind(group).execute(conn).await?;
    Ok(())
}

/// Ends the run if nothing of it is unfinished.
pub(crate) async fn settle(conn: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select snapshots.settle($1)").bind(run).execute(conn).await?;
    Ok(())
}

pub(crate) async fn notify(conn: &mut PgConnection, run: RunId) -> sqlx::Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(RUN_CHANNEL).bind(run.to_string()).execute(conn).await?;
    Ok(())
}
