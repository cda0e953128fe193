//! The figures behind the state, one named function per statement.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use uuid::Uuid;

/// The indexed chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainFigures {
    /// Lowest canonical block.
    pub first: Option<u64>,
    /// Highest canonical block.
    pub tip: Option<u64>,
    /// Heights between the two without a canonical block.
    pub missing_blocks: u64,
    /// The lowest gaps, ten at most.
    pub gaps: Vec<Gap>,
}

/// Heights without a canonical block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// First missing height.
    pub gap_start: u64,
    /// Last missing height.
    pub gap_end: u64,
    /// Their number.
    pub size: u64,
}

/// A run, as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Its id.
    pub id: Uuid,
    /// Where it stands.
    pub state: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub done_at: Option<DateTime<Utc>>,
}

/// The newest snapshot of the `full` profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FullState {
    /// Its id.
    pub id: String,
    /// Its highest block.
    pub block_height: u64,
    /// When it was cut.
    pub created_at: DateTime<Utc>,
    /// Its age.
    pub age_seconds: u64,
    /// Its size in the bucket.
    pub size_bytes: u64,
}

/// The newest snapshot of the `full` profile, if there ever was one.
pub(super) async fn full(db: &sqlx::PgPool, network: &str, at: DateTime<Utc>) -> sqlx::Result<Option<FullState>> {
    let newest = crate::full_catalog::newest(db, network).await?;
    Ok(newest.map(|row| FullState {
        id: row.id,
        block_height: row.block_height.unwrap_or_default().unsigned_abs(),
        created_at: row.created_at,
        age_seconds: (at - row.created_at).num_seconds().max(0).unsigned_abs(),
        size_bytes: row.size_bytes.unwrap_or_default().unsigned_abs(),
    }))
}

/// Counts the canonical chain by its index; looks for gaps only if some height is missing.
pub(super) async fn chain(db: &sqlx::PgPool) -> sqlx::Result<ChainFigures> {
    let sql = "select min(height), max(height), count(*) from public.blocks where canonical";
    let (first, tip, count): (Option<i64>, Option<i64>, i64) = sqlx::query_as(sql).fetch_one(db).await?;
    let (Some(first), Some(tip)) = (first, tip) else { return Ok(ChainFigures::default()) };
    let missing_blocks = (tip - first + 1 - count).unsigned_abs();
    let gaps = if missing_blocks > 0 { gaps(db).await? } else { Vec::new() };
    Ok(ChainFigures { first: Some(first.unsigned_abs()), tip: Some(tip.unsigned_abs()), missing_blocks, gaps })
}

async fn gaps(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Gap>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "select height + 1, next - 1 from (select height, lead(height) over (order by height) as next
                                           from public.blocks where canonical) b
         where next > height + 1 order by height limit 10",
    )
    .fetch_all(db)
    .await?;
    let gap = |(from, to): (i64, i64)| Gap {
        gap_start: from.unsigned_abs(),
        gap_end: to.unsigned_abs(),
        size: (to - from + 1).unsigned_abs(),
    };
    Ok(rows.into_iter().map(gap).collect())
}

/// The last run that was to cut a snapshot of a network.
pub(super) async fn last_run(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Option<LastRun>> {
    let sql = "select id, state, created_at, done_at from snapshots.run
               where workflow = $1 and unique_key = $2 order by created_at desc limit 1";
    sqlx::query_as(sql).bind(crate::snapshot::NAME).bind(network).fetch_optional(db).await
}

/// Why the newest run that looked at the chain refused it, if it did. A run that ended before it looked, as where the bucket did not
/// answer, judges nothing; one whose `plan` succeeded has accepted the chain, however it went on.
pub(crate) async fn audit_problem(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Option<String>> {
    let sql = "select refusal.data ->> 'problem' from snapshots.run r
               join snapshots.step s on s.run_id = r.id and s.name = 'plan'
               left join lateral (select e.at, e.data from snapshots.event e where e.run_id = r.id and e.kind = $3
                                  order by e.id desc limit 1) refusal on s.state <> 'succeeded'
               where r.workflow = $1 and r.unique_key = $2 and (s.state = 'succeeded' or refusal.at is not null)
               order by case when s.state = 'succeeded' then s.done_at else refusal.at end desc limit 1";
    let query = sqlx::query_scalar(sql).bind(crate::snapshot::NAME).bind(network).bind(crate::snapshot::AUDIT_FAILED);
    let found: Option<Option<String>> = query.fetch_optional(db).await?;
    Ok(found.flatten())
}

/// Ranges that scrubbing marked, and that no promoted snapshot has cut anew yet.
pub(crate) async fn changed_ranges(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<u64> {
    let sql = "select count(*) from snapshots.dirty_range where network = $1";
    let count: i64 = sqlx::query_scalar(sql).bind(network).fetch_one(db).await?;
    Ok(count.unsigned_abs())
}
