//! Puts right what was under way in a database when a snapshot of the `full` profile was cut: the processes that did it are gone.
//!
//! What the original's services need of a database restored with its tenants: no view ahead of the chain, no job that a dead
//! worker holds, none for a block that is not there, and sequences behind which no id is given twice. Tables and columns that later versions dropped
//! are passed over. Invariant: runs once, in one transaction with its line in the ledger.

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use super::{Job, LoadError, ledger};
use crate::columns::quote;

/// Name of the line in the ledger.
const NAME: &str = "settle";

/// What was put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Sequences set to where they stood.
    pub sequences: usize,
    /// Views that were ahead of the chain: their rows above it are gone, and they go on below it.
    pub views_lowered: Vec<String>,
    /// Views whose rebuilding died with its process: ask for it again.
    pub views_to_reindex: Vec<String>,
    /// Jobs that a worker held and that wait again.
    pub jobs_returned: u64,
    /// Jobs for blocks above the chain: the indexer asks for them again when it stores the blocks.
    pub jobs_removed: u64,
}

pub(super) async fn run(job: &Job<'_>) -> Result<Settled, LoadError> {
    let at = || LoadError::at("put right what was under way");
    let mut conn = job.pool.acquire().await.map_err(at())?;
    let mut tx = conn.begin().await.map_err(at())?;
    let mut settled = Settled::default();
    if ledger::note(&mut tx, NAME).await.map_err(at())? {
        settled.sequences = sequences(job, &mut tx).await.map_err(at())?;
        if there(&mut tx, "public.views").await.map_err(at())? {
            settled.views_lowered = views(&mut tx).await.map_err(at())?;
            settled.views_to_reindex = unfinished(&mut tx).await.map_err(at())?;
        }
        if there(&mut tx, "public.jobs").await.map_err(at())? {
            (settled.jobs_returned, settled.jobs_removed) = jobs(&mut tx).await.map_err(at())?;
        }
    }
    tx.commit().await.map_err(at())?;
    for view in &settled.views_to_reindex {
        job.watch.note(&format!("view {view} was being rebuilt when the snapshot was cut: ask for its reindex again"));
    }
    Ok(settled)
}

async fn there(conn: &mut PgConnection, table: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select pg_catalog.to_regclass($1) is not null").bind(table).fetch_one(conn).await
}

async fn sequences(job: &Job<'_>, conn: &mut PgConnection) -> sqlx::Result<usize> {
    let all = &job.opened.manifest.sequences;
    for sequence in all {
        sqlx::query("select pg_catalog.setval($1::text::regclass, $2, $3)")
            .bind(&sequence.name)
            .bind(sequence.last_value)
            .bind(sequence.is_called)
            .execute(&mut *conn)
            .await?;
    }
    Ok(all.len())
}

/// A view that is ahead of what it may read would never look at the blocks between. Its rows above go, as the original does it at a
/// reorganisation; what updates changed in rows below stays changed.
async fn views(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let height = "(select coalesce(max(last_contiguous_block), 0) from public.index_progress)";
    let sql = format!("select id::text, name, schema_name from public.views where last_processed_block > {height} order by name");
    let ahead: Vec<(String, String, Option<String>)> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *conn).await?;
    let mut names = Vec::new();
    for (id, name, schema) in ahead {
        for table in tables_with_heights(conn, schema.as_deref().unwrap_or_default()).await? {
            let sql = format!("delete from {table} where _block_height > {height}");
            let removed = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *conn).await?.rows_affected();
            ledger::note_removed(conn, &table, removed).await?;
        }
        let sql = format!("update public.views set last_processed_block = {height} where id = $1::uuid");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).execute(&mut *conn).await?;
        names.push(name);
    }
    Ok(names)
}

async fn tables_with_heights(conn: &mut PgConnection, schema: &str) -> sqlx::Result<Vec<String>> {
    let rows: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = '_block_height'
         where n.nspname = $1 and c.relkind = 'r' order by 1",
    )
    .bind(schema)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|table| format!("{}.{}", quote(schema), quote(&table))).collect())
}

async fn unfinished(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select name from public.views where status = 'reindexing' order by name").fetch_all(conn).await
}

async fn jobs(conn: &mut PgConnection) -> sqlx::Result<(u64, u64)> {
    let removed = sqlx::query(
        "delete from public.jobs where status in ('pending', 'processing')
            and block_height > (select coalesce(max(height), 0) from public.blocks)",
    );
    let removed = removed.execute(&mut *conn).await?.rows_affected();
    ledger::note_removed(conn, "public.\"jobs\"", removed).await?;
    let returned =
        sqlx::query("update public.jobs set status = 'pending', locked_at = null, locked_by = null where status = 'processing'");
    Ok((returned.execute(conn).await?.rows_affected(), removed))
}
