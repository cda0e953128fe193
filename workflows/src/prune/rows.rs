//! Rows that pruning reads and writes, one named function per statement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::policy::Candidate;

/// A snapshot that has objects in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct WithObjects {
    pub(super) network: String,
    pub(super) id: String,
    pub(super) state: String,
}

/// Every snapshot of every network that was published and not deleted.
pub(super) async fn with_objects(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<WithObjects>> {
    let sql = "select network, id, state from snapshots.snapshot
               where state in ('published', 'retracted', 'expired') and published_at is not null";
    sqlx::query_as(sql).fetch_all(db).await
}

/// What the policy decides about; `latest` is held. A snapshot that a drill disproved does not stand for its day any more than one
/// that was taken back, but stays for a grace time, since somebody will want to look at it.
pub(super) async fn candidates(
    db: impl PgExecutor<'_>,
    network: &str,
    latest: Option<&str>,
    grace: Duration,
) -> sqlx::Result<Vec<Candidate>> {
    let sql = "select id, created_at, pin_reason is not null or disproved and drilled_at > now() - make_interval(secs => $2),
                      state = 'retracted' or disproved, promoted_at is not null, archive = 'stored'
               from snapshots.snapshot, lateral (select coalesce(not (drill ->> 'proved')::bool, false) as disproved) d
               where network = $1 and state in ('published', 'retracted') order by created_at desc";
    let rows: Vec<(String, DateTime<Utc>, bool, bool, bool, bool)> =
        sqlx::query_as(sql).bind(network).bind(grace.as_secs_f64()).fetch_all(db).await?;
    let candidate = |(id, created_at, pinned, retracted, promoted, stored): (String, _, bool, bool, bool, bool)| {
        let held = pinned || latest == Some(&id);
        Candidate { id, created_at, held, retracted, promoted, stored }
    };
    Ok(rows.into_iter().map(candidate).collect())
}

/// Takes snapshots out of the lists; their grace time begins.
pub(super) async fn expire(db: impl PgExecutor<'_>, network: &str, ids: &[String]) -> sqlx::Result<()> {
    let sql = "update snapshots.snapshot set state = 'expired', expired_at = now()
               where network = $1 and id = any($2) and state in ('published', 'retracted') and pin_reason is null";
    sqlx::query(sql).bind(network).bind(ids).execute(db).await?;
    Ok(())
}

/// Expired snapshots of a network whose grace time is over.
pub(super) async fn overdue(db: impl PgExecutor<'_>, network: &str, grace: Duration) -> sqlx::Result<Vec<String>> {
    let sql = "select id from snapshots.snapshot
               where network = $1 and state = 'expired' and expired_at <= now() - make_interval(secs => $2) order by created_at";
    sqlx::query_scalar(sql).bind(network).bind(grace.as_secs_f64()).fetch_all(db).await
}

/// Takes a snapshot back into the lists.
pub(super) async fn revive(db: impl PgExecutor<'_>, network: &str, id: &str) -> sqlx::Result<()> {
    let sql = "update snapshots.snapshot set state = 'published', expired_at = null where network = $1 and id = $2 and state = 'expired'";
    sqlx::query(sql).bind(network).bind(id).execute(db).await?;
    Ok(())
}

/// Notes that a snapshot's objects are gone. Its row stays, so that its id and number are never given again.
pub(super) async fn deleted(db: impl PgExecutor<'_>, network: &str, id: &str) -> sqlx::Result<()> {
    let sql = "update snapshots.snapshot set state = 'deleted' where network = $1 and id = $2 and state = 'expired'";
    sqlx::query(sql).bind(network).bind(id).execute(db).await?;
    Ok(())
}

/// A snapshot that is being cut, if any: chunks it has stored are named by nothing yet.
pub(super) async fn cutting(db: impl PgExecutor<'_>) -> sqlx::Result<Option<String>> {
    let sql = "select r.id::text from snapshots.run r
               where r.workflow = $1 and r.state in ('queued', 'running', 'retrying', 'paused') limit 1";
    sqlx::query_scalar(sql).bind(crate::snapshot::NAME).fetch_optional(db).await
}

/// Remembers what was seen without a name, and forgets what is named again or gone.
pub(super) async fn note(db: &sqlx::PgPool, seen: &[(String, i64)], run: Uuid) -> sqlx::Result<()> {
    let (keys, bytes): (Vec<String>, Vec<i64>) = seen.iter().cloned().unzip();
    let mut tx = db.begin().await?;
    sqlx::query("delete from snapshots.garbage where not (key = any($1))").bind(&keys).execute(&mut *tx).await?;
    sqlx::query(
        "insert into snapshots.garbage (key, bytes, seen_by) select key, bytes, $3 from unnest($1::text[], $2::bigint[]) as s (key, bytes)
         on conflict (key) do nothing",
    )
    .bind(&keys)
    .bind(bytes)
    .bind(run)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Those of `keys` that an earlier run saw a grace time ago.
pub(super) async fn condemn(db: impl PgExecutor<'_>, keys: &[String], run: Uuid, grace: Duration) -> sqlx::Result<()> {
    let sql = "update snapshots.garbage set condemned_by = $2
               where key = any($1) and seen_by <> $2 and seen_at <= now() - make_interval(secs => $3)";
    sqlx::query(sql).bind(keys).bind(run).bind(grace.as_secs_f64()).execute(db).await?;
    Ok(())
}

/// How many of `keys` a run would condemn now, and their size.
pub(super) async fn condemnable(db: impl PgExecutor<'_>, keys: &[String], grace: Duration) -> sqlx::Result<(i64, i64)> {
    let sql = "select count(*), coalesce(sum(bytes), 0)::bigint from snapshots.garbage
               where key = any($1) and seen_at <= now() - make_interval(secs => $2)";
    sqlx::query_as(sql).bind(keys).bind(grace.as_secs_f64()).fetch_one(db).await
}

/// What a run has condemned.
pub(super) async fn condemned(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as("select key, bytes from snapshots.garbage where condemned_by = $1 order by key").bind(run).fetch_all(db).await
}

/// Forgets an object that was deleted.
pub(super) async fn gone(db: impl PgExecutor<'_>, key: &str) -> sqlx::Result<()> {
    sqlx::query("delete from snapshots.garbage where key = $1").bind(key).execute(db).await?;
    Ok(())
}

/// Uploads for a network that were begun a grace time ago.
pub(super) async fn stale_uploads(
    db: impl PgExecutor<'_>,
    network: &str,
    grace: Duration,
) -> sqlx::Result<Vec<(String, String)>> {
    let sql = "select key, upload_id from snapshots.upload
               where started_at <= now() - make_interval(secs => $1) and starts_with(key, $2 || '/')";
    sqlx::query_as(sql).bind(grace.as_secs_f64()).bind(network).fetch_all(db).await
}
