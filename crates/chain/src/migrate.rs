//! Makes a database ready: the indexer's own tables where it has none, and our schema `snapshots` beside them.
//!
//! Invariant: on a database that another indexer made, nothing in `public` is created, altered or dropped; our
//! bookkeeping lives in `snapshots._chain_migrations`.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

/// The tables a chain is made of.
const CHAIN_TABLES: [&str; 4] = ["blocks", "transactions", "events", "index_progress"];
const INDEXER_SCHEMA: &str = include_str!("../../../migrations/secondlayer/0001_to_0014.sql");
/// Serialises concurrent starts; arbitrary, ours alone.
const LOCK: i64 = 0x736e_6170_6d69_6772;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrateReport {
    /// The indexer's tables were created, since there were none.
    pub created_indexer_tables: bool,
    /// How many migrations of our own were applied.
    pub applied: usize,
}

/// Why a database cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum ChainMigrateError {
    /// Some of the chain's tables exist and some do not.
    #[error("the database has some of the indexer's tables but lacks public.{missing}; use its own database or an empty one")]
    Incomplete {
        /// A table that is missing.
        missing: String,
    },
    /// A statement failed.
    #[error("cannot prepare the database")]
    Database(#[from] sqlx::Error),
    /// A migration of ours failed or was changed after it was applied.
    #[error("cannot migrate schema snapshots")]
    Migrate(#[from] MigrateError),
}

/// Makes the database ready for ingest; safe to call at every start and from several processes at once.
///
/// # Errors
/// See [`ChainMigrateError`].
pub async fn migrate(pool: &PgPool) -> Result<MigrateReport, ChainMigrateError> {
    let created_indexer_tables = create_indexer_tables(pool).await?;
    let mut migrator: Migrator = sqlx::migrate!("../../migrations/chain");
    migrator.create_schema("snapshots");
    // A newer binary may have run before: migrations only add.
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name("snapshots._chain_migrations");
    let before = count_applied(pool).await?;
    migrator.run(pool).await?;
    let applied = usize::try_from(count_applied(pool).await? - before).unwrap_or(0);
    Ok(MigrateReport { created_indexer_tables, applied })
}

async fn create_indexer_tables(pool: &PgPool) -> Result<bool, ChainMigrateError> {
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    let existing = existing_tables(&mut tx).await?;
    if existing.is_empty() {
        sqlx::raw_sql(INDEXER_SCHEMA).execute(&mut *tx).await?;
        tx.commit().await?;
        return Ok(true);
    }
    match CHAIN_TABLES.iter().find(|table| !existing.iter().any(|name| name == *table)) {
        Some(missing) => Err(ChainMigrateError::Incomplete { missing: (*missing).to_owned() }),
        None => Ok(false),
    }
}

/// Tables of the indexer in `public`, those of its migration bookkeeping included.
async fn existing_tables(conn: &mut sqlx::PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public' and tablename = any($1)")
        .bind(
            ["blocks", "transactions", "events", "index_progress", "kysely_migration", "accounts", "views", "streams"].as_slice(),
        )
        .fetch_all(conn)
        .await
}

async fn count_applied(pool: &PgPool) -> sqlx::Result<i64> {
    let exists: bool =
        sqlx::query_scalar("select to_regclass('snapshots._chain_migrations') is not null").fetch_one(pool).await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("select count(*) from snapshots._chain_migrations").fetch_one(pool).await
}
