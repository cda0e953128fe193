//! Ranges of heights that the next snapshot must cut again although they look unchanged, one named function per statement.

use chrono::{DateTime, Utc};
use snapshot::chunk::Heights;
use sqlx::PgExecutor;

/// Marks a range. A mark that is there already gets the newer reason and time.
///
/// # Errors
/// The database's.
pub async fn mark(db: impl PgExecutor<'_>, network: &str, range: Heights, reason: &str) -> sqlx::Result<()> {
    sqlx::query(
        "insert into snapshots.dirty_range (network, low, high, reason) values ($1, $2, $3, $4)
         on conflict (network, low, high) do update set reason = excluded.reason, marked_at = now()",
    )
    .bind(network)
    .bind(range.from.cast_signed())
    .bind(range.to.cast_signed())
    .bind(reason)
    .execute(db)
    .await?;
    Ok(())
}

/// Marked ranges of a network, lowest first.
///
/// # Errors
/// The database's.
pub async fn of(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Vec<Heights>> {
    let sql = "select low, high from snapshots.dirty_range where network = $1 order by low, high";
    let rows: Vec<(i64, i64)> = sqlx::query_as(sql).bind(network).fetch_all(db).await?;
    Ok(rows.into_iter().map(|(low, high)| Heights { from: low.unsigned_abs(), to: high.unsigned_abs() }).collect())
}

/// Takes marks away that lie in ranges which were cut since; a mark set after `before` stays.
///
/// # Errors
/// The database's.
pub async fn clear(db: impl PgExecutor<'_>, network: &str, cut: Vec<Heights>, before: DateTime<Utc>) -> sqlx::Result<()> {
    let (low, high): (Vec<i64>, Vec<i64>) = cut.iter().map(|range| (range.from.cast_signed(), range.to.cast_signed())).unzip();
    sqlx::query(
        "delete from snapshots.dirty_range d using unnest($2::bigint[], $3::bigint[]) as cut (low, high)
         where d.network = $1 and d.low >= cut.low and d.high <= cut.high and d.marked_at <= $4",
    )
    .bind(network)
    .bind(low)
    .bind(high)
    .bind(before)
    .execute(db)
    .await?;
    Ok(())
}
