//! Ranges of heights that the next snapshot must cut again although they look unchanged, one named function per statement.
//! Invariant: a mark goes only when `latest` moves to a snapshot that has cut its range since.

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
         on conflict (network, low, high) do update set reason = excluded.reason, marked_at = now(), recut_by = null",
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

/// Notes which marks a snapshot has answered: those in ranges that it has cut. A mark set after `before` is not one of them.
///
/// # Errors
/// The database's.
pub async fn recut(
    db: impl PgExecutor<'_>,
    (network, sequence): (&str, u64),
    cut: Vec<Heights>,
    before: DateTime<Utc>,
) -> sqlx::Result<()> {
    let (low, high): (Vec<i64>, Vec<i64>) = cut.iter().map(|range| (range.from.cast_signed(), range.to.cast_signed())).unzip();
    sqlx::query(
        "update snapshots.dirty_range d set recut_by = greatest(d.recut_by, $5)
         from unnest($2::bigint[], $3::bigint[]) as cut (low, high)
         where d.network = $1 and d.low >= cut.low and d.high <= cut.high and d.marked_at <= $4",
    )
    .bind(network)
    .bind(low)
    .bind(high)
    .bind(before)
    .bind(sequence.cast_signed())
    .execute(db)
    .await?;
    Ok(())
}

/// Takes marks away that the snapshot `latest` points at, or one before it, has answered. Those in between were planned while the
/// marks were there, so they have cut the ranges themselves, or took them over from one that had.
///
/// # Errors
/// The database's.
pub async fn clear(db: impl PgExecutor<'_>, network: &str, sequence: u64) -> sqlx::Result<()> {
    let sql = "delete from snapshots.dirty_range where network = $1 and recut_by <= $2";
    sqlx::query(sql).bind(network).bind(sequence.cast_signed()).execute(db).await?;
    Ok(())
}
