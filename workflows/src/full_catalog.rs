//! Rows about snapshots of the `full` profile in the control database, one named function per statement.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use uuid::Uuid;

/// A snapshot of the `full` profile: figures about it, nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct FullRow {
    /// For example `mainnet`.
    pub network: String,
    /// UTC date, then `.2`, `.3`.
    pub id: String,
    /// Counts the snapshots of this profile and network.
    pub sequence: i64,
    /// cutting, published, expired or deleted.
    pub state: String,
    /// When cutting began.
    pub created_at: DateTime<Utc>,
    /// sha256 (hex) of its encrypted manifest.
    pub manifest_sha256: Option<String>,
    /// Highest block.
    pub block_height: Option<i64>,
    /// Tables in it.
    pub tables: Option<i32>,
    /// Rows in it.
    pub rows: Option<i64>,
    /// Their COPY text, bytes.
    pub raw_bytes: Option<i64>,
    /// Its encrypted chunks, bytes.
    pub size_bytes: Option<i64>,
}

const COLUMNS: &str =
    "network, id, sequence, state, created_at, manifest_sha256, block_height, tables, rows, raw_bytes, size_bytes";

/// The snapshot of a run, if it has one.
///
/// # Errors
/// The database's.
pub async fn of_run(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Option<FullRow>> {
    let sql = format!("select {COLUMNS} from snapshots.full_snapshot where run_id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run).fetch_optional(db).await
}

/// The newest that was published, whatever became of it.
///
/// # Errors
/// The database's.
pub async fn newest(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Option<FullRow>> {
    let sql = format!(
        "select {COLUMNS} from snapshots.full_snapshot where network = $1 and published_at is not null order by sequence desc limit 1"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(network).fetch_optional(db).await
}

/// Ids of a network that begin with a date.
///
/// # Errors
/// The database's.
pub async fn ids_on(db: impl PgExecutor<'_>, network: &str, date: NaiveDate) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select id from snapshots.full_snapshot where network = $1 and id like $2 || '%'")
        .bind(network)
        .bind(date.to_string())
        .fetch_all(db)
        .await
}

/// Gives a run its id, and a sequence number above every one here and above `floor`, the one in the bucket.
///
/// # Errors
/// The database's; a taken id is a unique violation.
pub async fn allocate(db: impl PgExecutor<'_>, run: Uuid, network: &str, id: &str, floor: u64) -> sqlx::Result<FullRow> {
    let sql = format!(
        "insert into snapshots.full_snapshot (network, id, run_id, sequence)
         values ($1, $2, $3, greatest($4, (select coalesce(max(sequence), 0) from snapshots.full_snapshot where network = $1)) + 1)
         returning {COLUMNS}"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(network).bind(id).bind(run).bind(floor.cast_signed()).fetch_one(db).await
}

/// What a snapshot is going to be once its manifest is written.
///
/// # Errors
/// The database's.
pub async fn intend(db: impl PgExecutor<'_>, run: Uuid, row: &FullRow) -> sqlx::Result<()> {
    sqlx::query(
        "update snapshots.full_snapshot set manifest_sha256 = $2, block_height = $3, tables = $4, rows = $5, raw_bytes = $6, size_bytes = $7
         where run_id = $1 and state = 'cutting'",
    )
    .bind(run)
    .bind(&row.manifest_sha256)
    .bind(row.block_height)
    .bind(row.tables)
    .bind(row.rows)
    .bind(row.raw_bytes)
    .bind(row.size_bytes)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the manifest is written; one that has expired since stays so.
///
/// # Errors
/// The database's.
pub async fn mark_published(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<()> {
    let sql =
        "update snapshots.full_snapshot set state = 'published', published_at = now() where run_id = $1 and state = 'cutting'";
    sqlx::query(sql).bind(run).execute(db).await?;
    Ok(())
}

/// Published snapshots of a network, as pruning decides about them: id and time.
///
/// # Errors
/// The database's.
pub async fn published(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Vec<(String, DateTime<Utc>)>> {
    let sql =
        "select id, created_at from snapshots.full_snapshot where network = $1 and state = 'published' order by sequence desc";
    sqlx::query_as(sql).bind(network).fetch_all(db).await
}

/// Lets the grace time of snapshots begin; that of what a run left unfinished, and does not go on with, too.
///
/// # Errors
/// The database's.
pub async fn expire(db: impl PgExecutor<'_>, network: &str, ids: &[String]) -> sqlx::Result<()> {
    let sql = "update snapshots.full_snapshot s set state = 'expired', expired_at = now() where network = $1 and
            ((state = 'published' and id = any($2)) or (state = 'cutting' and not exists (
                select from snapshots.run r where r.id = s.run_id and r.state in ('queued', 'running', 'retrying', 'paused'))))";
    sqlx::query(sql).bind(network).bind(ids).execute(db).await?;
    Ok(())
}

/// Expired snapshots whose grace time is over.
///
/// # Errors
/// The database's.
pub async fn overdue(db: impl PgExecutor<'_>, network: &str, grace: Duration) -> sqlx::Result<Vec<String>> {
    let sql = "select id from snapshots.full_snapshot
               where network = $1 and state = 'expired' and expired_at <= now() - make_interval(secs => $2) order by sequence";
    sqlx::query_scalar(sql).bind(network).bind(grace.as_secs_f64()).fetch_all(db).await
}

/// Notes that a snapshot's objects are gone. Its row stays, so that its id and number are never given again.
///
/// # Errors
/// The database's.
pub async fn deleted(db: impl PgExecutor<'_>, network: &str, id: &str) -> sqlx::Result<()> {
    let sql = "update snapshots.full_snapshot set state = 'deleted' where network = $1 and id = $2 and state = 'expired'";
    sqlx::query(sql).bind(network).bind(id).execute(db).await?;
    Ok(())
}
