//! What the catalog knows of drills, one named function per statement.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use snapshot::drill::Record;
use sqlx::types::Json;
use sqlx::{PgExecutor, PgPool};

/// Keeps the record of a drill, in view of the one before it, and returns what is kept.
pub(super) async fn keep(db: &PgPool, record: Record) -> sqlx::Result<Record> {
    let mut tx = db.begin().await?;
    // Two drills of one snapshot may end at the same moment: neither may lose what the other found.
    let sql = "select drill from snapshots.snapshot where network = $1 and id = $2 for update";
    let found: Option<Option<Json<Record>>> =
        sqlx::query_scalar(sql).bind(&record.network).bind(&record.snapshot_id).fetch_optional(&mut *tx).await?;
    let record = record.after(found.flatten().as_deref());
    let sql = "update snapshots.snapshot set drill = $3, drilled_at = now() where network = $1 and id = $2";
    sqlx::query(sql).bind(&record.network).bind(&record.snapshot_id).bind(Json(&record)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(record)
}

/// A snapshot whose last drill proved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Proved {
    /// Its id.
    pub id: String,
    /// When it was cut.
    pub created_at: DateTime<Utc>,
    /// When its last drill ended.
    pub drilled_at: DateTime<Utc>,
}

/// The drills of a network.
#[derive(Debug, Default)]
pub(crate) struct Drills {
    /// The newest promoted snapshot whose last drill proved it.
    pub(crate) proved: Option<Proved>,
    /// The last drill of all.
    pub(crate) last: Option<Record>,
    /// The newest drill that disproved a snapshot which is still published.
    pub(crate) disproved: Option<Record>,
}

/// Reads what is known.
pub(crate) async fn of_network(db: &PgPool, network: &str) -> sqlx::Result<Drills> {
    Ok(Drills {
        proved: proved(db, network).await?,
        last: last(db, network, false).await?,
        disproved: last(db, network, true).await?,
    })
}

async fn proved(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Option<Proved>> {
    let sql = "select id, created_at, drilled_at from snapshots.snapshot
               where network = $1 and state = 'published' and promoted_at is not null and (drill ->> 'proved')::bool
               order by sequence desc limit 1";
    sqlx::query_as(sql).bind(network).fetch_optional(db).await
}

async fn last(db: impl PgExecutor<'_>, network: &str, disproved: bool) -> sqlx::Result<Option<Record>> {
    let sql = "select drill from snapshots.snapshot
               where network = $1 and drill is not null and (not $2 or (state = 'published' and not (drill ->> 'proved')::bool))
               order by drilled_at desc limit 1";
    let found: Option<Json<Record>> = sqlx::query_scalar(sql).bind(network).bind(disproved).fetch_optional(db).await?;
    Ok(found.map(|json| json.0))
}
