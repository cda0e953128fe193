//! What is done already: schema `snapshots_restore`, beside the data and in the same transactions.
//!
//! Invariant: a chunk is listed exactly if its rows are there; a definition exactly if it was made. The row in `restore` says of
//! which snapshot, so that two are never mixed. The schema stays: `update` and `verify` read it.

use std::collections::HashMap;

use sqlx::{Connection, Executor, PgConnection, PgPool};

use super::{LoadError, Selection};
use crate::chunk::{Chunk, Heights};
use crate::fetch::Opened;
use crate::manifest::Manifest;

const TABLES: &str = "
    create schema if not exists snapshots_restore;
    create table if not exists snapshots_restore.restore (
        only_one boolean primary key default true check (only_one),
        network text not null, snapshot_id text not null, sequence bigint not null,
        manifest_sha256 text not null, manifest text not null, selection jsonb not null,
        state text not null check (state in ('loading', 'updating', 'complete')),
        started_at timestamptz not null default clock_timestamp(), done_at timestamptz
    );
    alter table snapshots_restore.restore add column if not exists schema bytea;
    create table if not exists snapshots_restore.chunk (
        table_name text not null, from_height bigint not null, to_height bigint not null,
        content_sha256 text not null, rows bigint not null, loaded_at timestamptz not null default clock_timestamp(),
        primary key (table_name, from_height, to_height)
    );
    create table if not exists snapshots_restore.definition (
        name text primary key, made_at timestamptz not null default clock_timestamp()
    );
    create table if not exists snapshots_restore.removed (table_name text primary key, rows bigint not null)";

/// Height under which a table without heights is listed; its further parts are listed below.
const NO_HEIGHT: i64 = -1;
/// Serialises restores and updates of one database; arbitrary, ours alone.
const LOCK: i64 = 0x736e_6170_7265_7374;

/// How far the database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A restore has begun and not ended.
    Loading,
    /// An update has begun and not ended.
    Updating,
    /// It was the snapshot, whole.
    Complete,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loading => "unfinished",
            Self::Updating => "an unfinished update to it",
            Self::Complete => "complete",
        })
    }
}

impl Held {
    pub(super) fn is(&self, opened: &Opened, selection: &Selection) -> bool {
        self.manifest_sha256 == opened.sha256 && self.selection == *selection
    }
}

/// What a database says it holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The manifest it was, or is being, made from.
    pub manifest: Manifest,
    /// sha256 (hex) of that manifest.
    pub manifest_sha256: String,
    /// What of it.
    pub selection: Selection,
    /// How far.
    pub state: State,
}

/// Held until it is dropped: nobody else restores into or updates the same database meanwhile.
pub(super) struct Lock {
    // The session is the lock: it is not given back to the pool.
    _session: PgConnection,
}

/// Takes the lock. The session of a process that was just killed may still hold it, so this waits some seconds.
pub(super) async fn lock(pool: &PgPool) -> Result<Lock, LoadError> {
    let at = || LoadError::at("lock the database against a second restore");
    let mut session = pool.acquire().await.map_err(at())?.detach();
    for _ in 0..50 {
        let got: bool = sqlx::query_scalar("select pg_catalog.pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut session)
            .await
            .map_err(at())?;
        if got {
            return Ok(Lock { _session: session });
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let _ = session.close().await;
    Err(LoadError::Busy)
}

/// What the database says it holds, if a restore ever began in it.
///
/// # Errors
/// The database's; a manifest that this version cannot read is an error of decoding.
pub async fn held(pool: &PgPool) -> sqlx::Result<Option<Held>> {
    let there: bool =
        sqlx::query_scalar("select pg_catalog.to_regclass('snapshots_restore.restore') is not null").fetch_one(pool).await?;
    if !there {
        return Ok(None);
    }
    let sql = "select manifest, manifest_sha256, selection::text, state from snapshots_restore.restore";
    let row: Option<(String, String, String, String)> = sqlx::query_as(sql).fetch_optional(pool).await?;
    let Some((manifest, manifest_sha256, selection, state)) = row else { return Ok(None) };
    let manifest = Manifest::from_bytes(manifest.as_bytes()).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let selection = serde_json::from_str(&selection).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let state = match state.as_str() {
        "loading" => State::Loading,
        "updating" => State::Updating,
        _ => State::Complete,
    };
    Ok(Some(Held { manifest, manifest_sha256, selection, state }))
}

/// Makes the tables of the ledger and notes which snapshot comes, unless it is noted already.
pub(super) async fn begin(pool: &PgPool, opened: &Opened, selection: &Selection, schema: &[u8]) -> Result<(), LoadError> {
    let at = || LoadError::at("create schema snapshots_restore");
    pool.execute(TABLES).await.map_err(at())?;
    sqlx::query(
        "insert into snapshots_restore.restore (network, snapshot_id, sequence, manifest_sha256, manifest, selection, state, schema)
         values ($1, $2, $3, $4, $5, $6::jsonb, 'loading', $7) on conflict do nothing",
    )
    .bind(&opened.manifest.network)
    .bind(&opened.manifest.snapshot_id)
    .bind(opened.manifest.sequence.cast_signed())
    .bind(&opened.sha256)
    .bind(String::from_utf8_lossy(&opened.bytes).into_owned())
    .bind(serde_json::to_string(selection).unwrap_or_default())
    .bind(schema)
    .execute(pool)
    .await
    .map_err(at())?;
    Ok(())
}

/// Notes that the database is on its way to another snapshot, with this schema.
pub(super) async fn begin_update(conn: &mut PgConnection, opened: &Opened, schema: &[u8]) -> sqlx::Result<()> {
    conn.execute(TABLES).await?;
    sqlx::query(
        "update snapshots_restore.restore set network = $1, snapshot_id = $2, sequence = $3, manifest_sha256 = $4, manifest = $5,
                state = 'updating', done_at = null, schema = $6",
    )
    .bind(&opened.manifest.network)
    .bind(&opened.manifest.snapshot_id)
    .bind(opened.manifest.sequence.cast_signed())
    .bind(&opened.sha256)
    .bind(String::from_utf8_lossy(&opened.bytes).into_owned())
    .bind(schema)
    .execute(conn)
    .await?;
    Ok(())
}

/// The schema object of what the database holds. `None`: it was restored by a program that did not keep it.
pub(super) async fn schema(pool: &PgPool) -> sqlx::Result<Option<Vec<u8>>> {
    let sql = "select decode(substr(to_jsonb(r) ->> 'schema', 3), 'hex') from snapshots_restore.restore r";
    Ok(sqlx::query_scalar(sql).fetch_optional(pool).await?.flatten())
}

/// Notes that all is done. This commit waits for the disk, and with it for every one before.
pub(super) async fn end(pool: &PgPool) -> Result<(), LoadError> {
    let sql = "begin; set local synchronous_commit = on;
               update snapshots_restore.restore set state = 'complete', done_at = coalesce(done_at, clock_timestamp()); commit";
    pool.execute(sql).await.map_err(LoadError::at("note that the restore is complete"))?;
    Ok(())
}

/// A chunk that is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, sqlx::FromRow)]
pub(super) struct Loaded {
    pub(super) table_name: String,
    pub(super) from_height: i64,
    pub(super) to_height: i64,
    pub(super) content_sha256: String,
}

impl Loaded {
    pub(super) fn of(chunk: &Chunk) -> Self {
        let part = NO_HEIGHT - i64::from(chunk.part);
        let (from, to) = chunk.heights.map_or((part, part), |h| (h.from.cast_signed(), h.to.cast_signed()));
        Self { table_name: chunk.table.clone(), from_height: from, to_height: to, content_sha256: chunk.content_sha256.clone() }
    }

    /// `None` of a table without heights.
    pub(super) fn heights(&self) -> Option<Heights> {
        Some(Heights { from: u64::try_from(self.from_height).ok()?, to: u64::try_from(self.to_height).ok()? })
    }
}

/// All chunks that are there.
pub(super) async fn loaded(pool: &PgPool) -> sqlx::Result<std::collections::HashSet<Loaded>> {
    let sql = "select table_name, from_height, to_height, content_sha256 from snapshots_restore.chunk";
    Ok(sqlx::query_as(sql).fetch_all(pool).await?.into_iter().collect())
}

/// Lists a chunk in the transaction that is about to load it. `false`: it is there already; the statement waits for any other
/// transaction that is loading it, such as the last one of a killed process.
pub(super) async fn claim(conn: &mut PgConnection, chunk: &Chunk, rows: u64) -> sqlx::Result<bool> {
    let key = Loaded::of(chunk);
    let done = sqlx::query(
        "insert into snapshots_restore.chunk (table_name, from_height, to_height, content_sha256, rows) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(key.table_name)
    .bind(key.from_height)
    .bind(key.to_height)
    .bind(key.content_sha256)
    .bind(rows.cast_signed())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the chunks of a table that touch these heights (or all of it) off the list.
pub(super) async fn forget(conn: &mut PgConnection, table: &str, heights: Option<(u64, u64)>) -> sqlx::Result<()> {
    let (from, to) = heights.map_or((i64::MIN, i64::MAX), |(from, to)| (from.cast_signed(), to.cast_signed()));
    sqlx::query("delete from snapshots_restore.chunk where table_name = $1 and from_height <= $3 and to_height >= $2")
        .bind(table)
        .bind(from)
        .bind(to)
        .execute(conn)
        .await?;
    Ok(())
}

/// Names of definitions that were made.
pub(super) async fn made(pool: &PgPool) -> sqlx::Result<std::collections::HashSet<String>> {
    let names: Vec<String> = sqlx::query_scalar("select name from snapshots_restore.definition").fetch_all(pool).await?;
    Ok(names.into_iter().collect())
}

/// Notes that something is done in the transaction that does it; `false` if it is noted.
pub(super) async fn note(conn: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    let claim = "insert into snapshots_restore.definition (name) values ($1) on conflict do nothing";
    Ok(sqlx::query(claim).bind(name).execute(conn).await?.rows_affected() == 1)
}

/// Notes that rows of a table (schema and name, quoted) were taken away in the transaction that does it.
pub(super) async fn note_removed(conn: &mut PgConnection, table: &str, rows: u64) -> sqlx::Result<()> {
    let sql = "insert into snapshots_restore.removed as r values ($1, $2) on conflict (table_name) do update set rows = r.rows + excluded.rows";
    sqlx::query(sql).bind(table).bind(rows.cast_signed()).execute(conn).await.map(drop)
}

/// How many rows of each table were taken away since they were restored.
pub(crate) async fn removed(pool: &PgPool) -> sqlx::Result<HashMap<String, u64>> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select table_name, rows from snapshots_restore.removed").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(table, rows)| (table, rows.unsigned_abs())).collect())
}

/// Runs statements and notes them as done, in one transaction; nothing if they are noted.
pub(super) async fn once(conn: &mut PgConnection, name: &str, sql: &str) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    if note(&mut tx, name).await? {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await?;
    }
    tx.commit().await
}
