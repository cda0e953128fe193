//! Which sealed chunks were compressed again, by the digest of their rows. Losing the table costs the work, nothing else.

use std::collections::HashMap;

use sqlx::PgExecutor;

/// The stored object of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Object {
    /// sha256 (hex) of the object.
    pub sha256: String,
    /// Its size.
    pub bytes: i64,
}

/// Remembers the object that holds these rows in less space; a second attempt finds its own row.
///
/// # Errors
/// The database's.
pub async fn remember(db: impl PgExecutor<'_>, content_sha256: &str, object: &Object) -> sqlx::Result<()> {
    sqlx::query(
        "insert into snapshots.resealed (content_sha256, sha256, bytes) values ($1, $2, $3)
         on conflict (content_sha256) do update set sha256 = excluded.sha256, bytes = excluded.bytes",
    )
    .bind(content_sha256)
    .bind(&object.sha256)
    .bind(object.bytes)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets it, since its object is gone.
///
/// # Errors
/// The database's.
pub async fn forget(db: impl PgExecutor<'_>, content_sha256: &str) -> sqlx::Result<()> {
    sqlx::query("delete from snapshots.resealed where content_sha256 = $1").bind(content_sha256).execute(db).await?;
    Ok(())
}

/// Objects of those contents that were compressed again.
///
/// # Errors
/// The database's.
pub async fn of(db: impl PgExecutor<'_>, contents: &[String]) -> sqlx::Result<HashMap<String, Object>> {
    let sql = "select content_sha256, sha256, bytes from snapshots.resealed where content_sha256 = any($1)";
    let rows: Vec<(String, String, i64)> = sqlx::query_as(sql).bind(contents).fetch_all(db).await?;
    Ok(rows.into_iter().map(|(content, sha256, bytes)| (content, Object { sha256, bytes })).collect())
}

/// Names of all those objects: none of them is garbage, whether a manifest names it yet or not.
///
/// # Errors
/// The database's.
pub async fn objects(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select sha256 from snapshots.resealed").fetch_all(db).await
}
