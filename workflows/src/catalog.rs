//! Rows about snapshots and uploads in the control database, one named function per statement.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use snapshot::key::SnapshotPath;
use snapshot::manifest::Manifest;
use snapshot::store::CompletedPart;
use snapshot::writes::Writes;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

/// A snapshot as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRow {
    /// For example `mainnet`.
    pub network: String,
    /// UTC date, then `.2`, `.3`.
    pub id: String,
    /// The run that cut it.
    pub run_id: Uuid,
    /// Counts the snapshots of a network.
    pub sequence: i64,
    /// Highest block.
    pub block_height: Option<i64>,
    /// Hash of that block.
    pub block_hash: Option<String>,
    /// Where the archive is.
    pub url: Option<String>,
    /// `sha256:` + hex digest of the archive.
    pub checksum: Option<String>,
    /// Size of the archive in bytes.
    pub size_bytes: Option<i64>,
    /// `stored`, or `on_request`: the service makes it.
    pub archive: String,
    /// sha256 (hex) of the manifest: its strong validator.
    pub manifest_sha256: Option<String>,
    /// When cutting began.
    pub created_at: DateTime<Utc>,
    /// When the manifest was written.
    pub published_at: Option<DateTime<Utc>>,
    /// When `latest` was moved to it.
    pub promoted_at: Option<DateTime<Utc>>,
    /// What its last restore drill found; `None`: there was none.
    pub proved: Option<bool>,
}

impl SnapshotRow {
    /// Whether a restore drill found that it does not restore to what its manifest says.
    pub fn is_disproved(&self) -> bool {
        self.proved == Some(false)
    }

    /// Where its objects lie.
    pub fn path(&self) -> SnapshotPath {
        SnapshotPath::new(&self.network, &self.id)
    }
}

const COLUMNS: &str = "network, id, run_id, sequence, block_height, block_hash, url, checksum, size_bytes, archive, manifest_sha256, \
                       created_at, published_at, promoted_at, (drill ->> 'proved')::bool as proved";

/// Id and sequence number given to a run.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Allocation {
    /// Snapshot id.
    pub id: String,
    /// Sequence number.
    pub sequence: i64,
}

/// The id a run already has, if any.
///
/// # Errors
/// The database's.
pub async fn allocation_of(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Option<Allocation>> {
    sqlx::query_as("select id, sequence from snapshots.snapshot where run_id = $1").bind(run).fetch_optional(db).await
}

/// Ids of a network that begin with a date.
///
/// # Errors
/// The database's.
pub async fn ids_on(db: impl PgExecutor<'_>, network: &str, date: NaiveDate) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select id from snapshots.snapshot where network = $1 and id like $2 || '%'")
        .bind(network)
        .bind(date.to_string())
        .fetch_all(db)
        .await
}

/// Gives a run its id; the sequence number is above every one seen here and above `floor`, the one in the bucket.
///
/// # Errors
/// The database's; a taken id is a unique violation.
pub async fn allocate(conn: &mut PgConnection, run: Uuid, network: &str, id: &str, floor: u64) -> sqlx::Result<Allocation> {
    sqlx::query_as(
        "insert into snapshots.snapshot (network, id, run_id, sequence)
         values ($1, $2, $3, greatest($4, (select coalesce(max(sequence), 0) from snapshots.snapshot where network = $1)) + 1)
         returning id, sequence",
    )
    .bind(network)
    .bind(id)
    .bind(run)
    .bind(floor.cast_signed())
    .fetch_one(conn)
    .await
}

/// Keeps what PostgreSQL had counted as written when a run planned its snapshot.
///
/// # Errors
/// The database's.
pub async fn keep_writes(db: impl PgExecutor<'_>, run: Uuid, writes: Option<&Writes>) -> sqlx::Result<()> {
    let sql = "update snapshots.snapshot set writes = $2 where run_id = $1";
    sqlx::query(sql).bind(run).bind(writes.map(Json)).execute(db).await?;
    Ok(())
}

/// What PostgreSQL had counted as written when a snapshot was planned.
///
/// # Errors
/// The database's.
pub async fn writes_of(db: impl PgExecutor<'_>, network: &str, id: &str) -> sqlx::Result<Option<Writes>> {
    let sql = "select writes from snapshots.snapshot where network = $1 and id = $2 and writes is not null";
    let found: Option<Json<Writes>> = sqlx::query_scalar(sql).bind(network).bind(id).fetch_optional(db).await?;
    Ok(found.map(|json| json.0))
}

/// Marks a snapshot as published, with what its manifest says. One that was published before keeps what was decided since.
///
/// # Errors
/// The database's.
pub async fn mark_published(db: impl PgExecutor<'_>, manifest: &Manifest, manifest_sha256: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update snapshots.snapshot set state = case when published_at is null then 'published' else state end, published_at = coalesce(published_at, now()), block_height = $3,
                block_hash = $4, url = $5, checksum = $6, size_bytes = $7, manifest_sha256 = $8, archive = $9
         where network = $1 and id = $2",
    )
    .bind(&manifest.network)
    .bind(&manifest.snapshot_id)
    .bind(manifest.block_height.cast_signed())
    .bind(&manifest.block_hash)
    .bind(&manifest.url)
    .bind(&manifest.checksum)
    .bind(manifest.size_bytes.cast_signed())
    .bind(manifest_sha256)
    .bind(manifest.archive.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// The snapshot of this ISO week whose archive is stored, if any: one that readers were sent to, since what nobody could prove is
/// nobody's archive of the week.
///
/// # Errors
/// The database's.
pub async fn archive_of_week(db: impl PgExecutor<'_>, network: &str, now: DateTime<Utc>) -> sqlx::Result<Option<String>> {
    let sql = "select id from snapshots.snapshot
               where network = $1 and state = 'published' and promoted_at is not null and archive = 'stored'
                 and coalesce((drill ->> 'proved')::bool, true)
                 and date_trunc('week', created_at at time zone 'utc') = date_trunc('week', $2 at time zone 'utc') limit 1";
    sqlx::query_scalar(sql).bind(network).bind(now).fetch_optional(db).await
}

/// Notes that `latest` points at a snapshot.
///
/// # Errors
/// The database's.
pub async fn mark_promoted(db: impl PgExecutor<'_>, network: &str, id: &str) -> sqlx::Result<()> {
    sqlx::query("update snapshots.snapshot set promoted_at = coalesce(promoted_at, now()) where network = $1 and id = $2")
        .bind(network)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Published snapshots, newest first, of one network or of all; `after` (network, id) begins behind that one.
///
/// # Errors
/// The database's.
pub async fn published(
    db: impl PgExecutor<'_>,
    network: Option<&str>,
    after: Option<(String, String)>,
    limit: i64,
) -> sqlx::Result<Vec<SnapshotRow>> {
    let (after_network, after_id) = after.unzip();
    let sql = format!(
        "select {COLUMNS} from snapshots.snapshot where state = 'published' and ($1::text is null or network = $1)
            and ($2::text is null or (published_at, network, id) < (select published_at, network, id from snapshots.snapshot
                                                                    where network = $2 and id = $3))
         order by published_at desc, network desc, id desc limit $4"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(network).bind(after_network).bind(after_id).bind(limit).fetch_all(db).await
}

/// Published snapshots with an id; more than one only where several networks share a service.
///
/// # Errors
/// The database's.
pub async fn with_id(db: impl PgExecutor<'_>, network: Option<&str>, id: &str) -> sqlx::Result<Vec<SnapshotRow>> {
    let sql = format!(
        "select {COLUMNS} from snapshots.snapshot
         where state = 'published' and id = $2 and ($1::text is null or network = $1) order by network"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(network).bind(id).fetch_all(db).await
}

/// Snapshots with an id that are published or were taken back.
///
/// # Errors
/// The database's.
pub async fn known(db: impl PgExecutor<'_>, network: Option<&str>, id: &str) -> sqlx::Result<Vec<SnapshotRow>> {
    let sql = format!(
        "select {COLUMNS} from snapshots.snapshot
         where state in ('published', 'retracted') and id = $2 and ($1::text is null or network = $1) order by network"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(network).bind(id).fetch_all(db).await
}

/// Why a snapshot was taken back, if it was.
///
/// # Errors
/// The database's.
pub async fn retraction(db: impl PgExecutor<'_>, network: Option<&str>, id: &str) -> sqlx::Result<Option<String>> {
    let sql = "select retract_reason from snapshots.snapshot
               where state = 'retracted' and id = $2 and ($1::text is null or network = $1) order by network limit 1";
    sqlx::query_scalar(sql).bind(network).bind(id).fetch_optional(db).await
}

/// Published snapshots of a network that `latest` once pointed at, newest first.
///
/// # Errors
/// The database's.
pub async fn promoted(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Vec<SnapshotRow>> {
    let sql = format!(
        "select {COLUMNS} from snapshots.snapshot
         where network = $1 and state = 'published' and promoted_at is not null order by sequence desc"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(network).fetch_all(db).await
}

/// The snapshot a run made, once it is published.
///
/// # Errors
/// The database's.
pub async fn of_run(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Option<SnapshotRow>> {
    let sql = format!("select {COLUMNS} from snapshots.snapshot where state = 'published' and run_id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run).fetch_optional(db).await
}

/// A multipart upload under way.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct UploadRow {
    /// The server's id of it.
    pub upload_id: String,
    /// Size of all parts but the last, bytes.
    pub part_bytes: i64,
    /// Acknowledged parts.
    pub parts: Json<Vec<CompletedPart>>,
}

/// The upload under way for a key, if any.
///
/// # Errors
/// The database's.
pub async fn upload_of(db: impl PgExecutor<'_>, key: &str) -> sqlx::Result<Option<UploadRow>> {
    sqlx::query_as("select upload_id, part_bytes, parts from snapshots.upload where key = $1").bind(key).fetch_optional(db).await
}

/// Remembers a new upload; an older one of the key is replaced.
///
/// # Errors
/// The database's.
pub async fn begin_upload(db: impl PgExecutor<'_>, key: &str, upload_id: &str, part_bytes: u64) -> sqlx::Result<()> {
    sqlx::query(
        "insert into snapshots.upload (key, upload_id, part_bytes) values ($1, $2, $3)
         on conflict (key) do update set upload_id = $2, part_bytes = $3, parts = '[]', started_at = now()",
    )
    .bind(key)
    .bind(upload_id)
    .bind(part_bytes.cast_signed())
    .execute(db)
    .await?;
    Ok(())
}

/// Remembers an acknowledged part, unless the upload was replaced meanwhile.
///
/// # Errors
/// The database's.
pub async fn add_part(db: impl PgExecutor<'_>, key: &str, upload_id: &str, part: &CompletedPart) -> sqlx::Result<()> {
    sqlx::query("update snapshots.upload set parts = parts || $3 where key = $1 and upload_id = $2")
        .bind(key)
        .bind(upload_id)
        .bind(Json([part]))
        .execute(db)
        .await?;
    Ok(())
}

/// The newest snapshot of a network that was ever published.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct NewestPublished {
    /// Its id.
    pub id: String,
    /// Its number.
    pub sequence: i64,
    /// sha256 (hex) of its manifest.
    pub manifest_sha256: String,
    /// Whether it is still published, and no restore drill disproved it.
    pub stands: bool,
}

/// The newest snapshot of a network that was ever published, also if it was never promoted, or taken back since.
///
/// # Errors
/// The database's.
pub async fn newest_published(db: impl PgExecutor<'_>, network: &str) -> sqlx::Result<Option<NewestPublished>> {
    let sql = "select id, sequence, coalesce(manifest_sha256, '') as manifest_sha256,
                      state = 'published' and coalesce((drill ->> 'proved')::bool, true) as stands
               from snapshots.snapshot where network = $1 and published_at is not null order by sequence desc limit 1";
    sqlx::query_as(sql).bind(network).fetch_optional(db).await
}

/// Forgets an upload that was aborted; one that was begun for the key since stays.
///
/// # Errors
/// The database's.
pub async fn forget_upload(db: impl PgExecutor<'_>, key: &str, upload_id: &str) -> sqlx::Result<()> {
    let sql = "delete from snapshots.upload where key = $1 and upload_id = $2";
    sqlx::query(sql).bind(key).bind(upload_id).execute(db).await?;
    Ok(())
}

/// Forgets the upload of an object that is there.
///
/// # Errors
/// The database's.
pub async fn end_upload(db: impl PgExecutor<'_>, key: &str) -> sqlx::Result<()> {
    sqlx::query("delete from snapshots.upload where key = $1").bind(key).execute(db).await?;
    Ok(())
}
