//! What PostgreSQL itself counted as written to the chain tables: by it a snapshot knows, at a cost that does not grow with the
//! chain, that nothing below its predecessor's tip was touched.
//!
//! The counters (`pg_stat_user_tables`) tell of inserts, updates and deletes of whole tables, rolled-back ones included. Nothing
//! old was touched if nothing was updated or deleted, and no more was inserted than there are rows above the old tip. Whatever
//! else they say, or whenever they cannot be compared (another server, a restart, reset counters, a standby, a rewritten
//! table), the answer is "perhaps", and the caller looks at the ranges themselves.
//!
//! A backend hands its counts over when it falls idle, seconds later (60 at most). A write of these last seconds may be seen by
//! the next snapshot only, as if it had come after this one: the counters kept are those that were compared, so it is never
//! lost.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// Written rows of one table since its counters began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct TableWrites {
    /// Its name in `public`.
    pub name: String,
    /// Identity of its storage: another one after TRUNCATE, CLUSTER or VACUUM FULL.
    pub storage: String,
    /// Rows inserted.
    pub inserted: i64,
    /// Rows updated.
    pub updated: i64,
    /// Rows deleted.
    pub deleted: i64,
}

/// The counters of the chain tables at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writes {
    /// Database, start of the server and last reset: counters of two eras cannot be compared.
    pub era: String,
    /// Highest block of any kind.
    pub tip: u64,
    /// By name.
    pub tables: Vec<TableWrites>,
}

/// Reads the counters, and the tip in the caller's transaction. `None` on a standby, which counts nothing, and where the server
/// does not let us see them.
///
/// # Errors
/// The database's.
pub async fn read(conn: &mut PgConnection) -> sqlx::Result<Option<Writes>> {
    let Some(era) = era(conn).await? else { return Ok(None) };
    let tip: Option<i64> = sqlx::query_scalar("select max(height) from public.blocks").fetch_one(&mut *conn).await?;
    let tables: Vec<TableWrites> = sqlx::query_as(
        "select relname::text as name, relid || '/' || pg_relation_filenode(relid) as storage,
                n_tup_ins as inserted, n_tup_upd as updated, n_tup_del as deleted
         from pg_stat_user_tables
         where schemaname = 'public' and relname in ('blocks', 'transactions', 'events') order by relname",
    )
    .fetch_all(conn)
    .await?;
    let whole = tables.len() == 3 && tables.iter().all(|table| !table.storage.is_empty());
    Ok(tip.filter(|_| whole).map(|tip| Writes { era, tip: tip.unsigned_abs(), tables }))
}

/// True if, as far as is counted, no row at or below `before.tip` was written since `before`.
///
/// # Errors
/// The database's.
pub async fn only_above(conn: &mut PgConnection, before: &Writes, now: &Writes) -> sqlx::Result<bool> {
    if before.era != now.era || before.tip > now.tip || before.tables.len() != now.tables.len() {
        return Ok(false);
    }
    let untouched = |(old, new): (&TableWrites, &TableWrites)| {
        (&old.name, &old.storage, old.updated, old.deleted) == (&new.name, &new.storage, new.updated, new.deleted)
    };
    if !before.tables.iter().zip(&now.tables).all(untouched) {
        return Ok(false);
    }
    let above = rows_above(conn, before.tip).await?;
    let inserted = |(old, new): (&TableWrites, &TableWrites)| new.inserted - old.inserted;
    Ok(before.tables.iter().zip(&now.tables).map(inserted).eq(above))
}

/// Rows above a height, by the tables' names: blocks, events, transactions.
async fn rows_above(conn: &mut PgConnection, height: u64) -> sqlx::Result<[i64; 3]> {
    let (blocks, events, transactions) = sqlx::query_as(
        "select (select count(*) from public.blocks where height > $1),
                (select count(*) from public.events where block_height > $1),
                (select count(*) from public.transactions where block_height > $1)",
    )
    .bind(height.cast_signed())
    .fetch_one(conn)
    .await?;
    Ok([blocks, events, transactions])
}

async fn era(conn: &mut PgConnection) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select concat_ws('/', d.datid, extract(epoch from pg_postmaster_start_time()), extract(epoch from d.stats_reset),
                          extract(epoch from (select stats_reset from pg_stat_bgwriter)))
         from pg_stat_database d
         where d.datname = current_database() and not pg_is_in_recovery() and current_setting('track_counts')::boolean",
    )
    .fetch_optional(conn)
    .await
}
