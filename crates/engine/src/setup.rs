//! Makes a database the control database: schema `snapshots`, the doorbell tables of apalis, our migrations.
//!
//! Invariant: on somebody else's database nothing of ours lands in `public`. apalis creates its extensions and a helper
//! function without naming a schema, so every connection's `search_path` begins with `snapshots`.
use std::str::FromStr;

use futures::FutureExt;
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::info;

use crate::{doorbell, error::SetupError};

fn migrations() -> sqlx::migrate::Migrator {
    sqlx::migrate!("../../migrations/control")
}

/// Made or replaced after the migrations; how they may change is said in the first.
const FUNCTIONS: [&str; 2] = [include_str!("sql/statements.sql"), include_str!("sql/consequences.sql")];

/// Grows with every change of [`FUNCTIONS`]: a database that has those of a greater revision keeps them.
const REVISION: i32 = 2;

/// Any constant: whoever migrates holds this advisory lock.
const SETUP_LOCK: i64 = 0x736e_6170_7365_7475;

/// How long a transaction may wait for its process before the server ends it. Without a bound a process that is frozen in
/// the middle of one would keep its locks, and everybody who needs them waiting.
const FROZEN_AFTER: &str = "10s";

/// Connection settings for the control database: `url` with a `search_path` of `snapshots, public`. `public` comes
/// second because an extension that the database's owner installed there stays there.
///
/// # Errors
/// A URL that is not a Postgres URL.
pub fn control_pool_options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?
        .application_name("snapshots")
        .options([("search_path", "snapshots,public"), ("idle_in_transaction_session_timeout", FROZEN_AFTER)]))
}

/// A pool on the control database. An engine holds one connection to listen, one per doorbell worker while it fetches,
/// and one per step while it writes: 10 is a fair minimum.
///
/// # Errors
/// A bad URL, or a database that does not answer.
pub async fn control_pool(url: &str, max_connections: u32) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(max_connections)
        // The check below is a round trip too and fails on a dead connection.
        .test_before_acquire(false)
        .before_acquire(|conn, _| is_at_rest(conn).boxed())
        .connect_with(control_pool_options(url)?)
        .await
}

/// Whether the connection is outside of any transaction. A future dropped while sqlx waits for the answer to BEGIN (a
/// step that is cut off, a sweep that ends) leaves it inside one; what the next user writes would never be committed.
/// In a simple query outside a transaction the two times are the same.
async fn is_at_rest(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::raw_sql("select now() = statement_timestamp()").fetch_one(conn).await?.try_get(0)
}

/// Creates or updates everything the engine needs. Safe to run again and from many processes at once; `pool` must come
/// from [`control_pool`] or [`control_pool_options`].
///
/// # Errors
/// Missing rights, or a migration that was changed after it was applied.
pub async fn migrate(pool: &PgPool) -> Result<(), SetupError> {
    let prepare = |what| move |source| SetupError::Prepare { what, source };
    // A connection of its own: the lock must not stay behind on a pooled one if this future is dropped.
    let mut lock = PgConnection::connect_with(&pool.connect_options()).await.map_err(prepare("a connection"))?;
    sqlx::query("select pg_advisory_lock($1)").bind(SETUP_LOCK).execute(&mut lock).await.map_err(prepare("a lock"))?;
    create(pool, "schema snapshots", "create schema if not exists snapshots").await?;
    create(pool, "extension pgcrypto", "create extension if not exists pgcrypto schema snapshots").await?;
    create(pool, "extension hstore", "create extension if not exists hstore schema snapshots").await?;
    doorbell::setup(pool).await?;
    // A newer binary may have run before: migrations only add, so its tables serve this one too.
    migrations().set_ignore_missing(true).run(pool).await?;
    replace_functions(pool).await.map_err(prepare("the engine's functions"))?;
    lock.close().await.map_err(prepare("a connection"))
}

async fn replace_functions(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    let sql = "insert into snapshots.function_revision as known (revision) values ($1) \
         on conflict (only_row) do update set revision = excluded.revision where known.revision <= excluded.revision \
         returning revision";
    let ours: Option<i32> = sqlx::query_scalar(sql).bind(REVISION).fetch_optional(&mut *tx).await?;
    if ours.is_none() {
        info!(revision = REVISION, "the database has the functions of a newer binary, and keeps them");
        return Ok(());
    }
    for functions in FUNCTIONS {
        sqlx::raw_sql(functions).execute(&mut *tx).await?;
    }
    tx.commit().await
}

async fn create(pool: &PgPool, what: &'static str, sql: &'static str) -> Result<(), SetupError> {
    sqlx::query(sql).execute(pool).await.map_err(|source| SetupError::Prepare { what, source })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a, 64 bits.
    fn digest(text: &str) -> u64 {
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    #[test]
    fn functions_that_changed_have_a_greater_revision() {
        let seen = (REVISION, format!("{:016x}", digest(&FUNCTIONS.concat())));
        assert_eq!(seen, (2, "41847ebfb92b61cd".into()), "raise REVISION with any change of the functions, then write both here");
    }
}
