//! A chain that grows when a test says so: blocks above a height wait in a schema of their own.
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use snapshot::chunk::Chunk;
use snapshot::manifest::Manifest;
use snapshot::verify::{self, Subject};
use sqlx::PgPool;

use super::hold::Hold;
use super::service::{ServiceProcess, Site, site};
use super::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const TABLES: [(&str, &str); 3] = [("blocks", "height"), ("transactions", "block_height"), ("events", "block_height")];

/// A site with a synthetic chain of small blocks up to `height`, which can grow to `blocks`. Its highest block is final at once.
pub(crate) async fn growing_site(blocks: u64, height: u64) -> Site {
    let site = site().await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    chain::migrate(&pool).await.unwrap();
    let profile = chain::synthetic::Profile::Quiet;
    let spec = chain::synthetic::Spec { blocks, seed: 7, profile, network: "mainnet".into() };
    chain::synthetic::load(&pool, &spec, |_| {}).await.unwrap();
    run(&pool, "create schema waiting").await;
    for (table, column) in TABLES {
        run(&pool, &format!("create table waiting.{table} as select * from public.{table} where {column} > {height}")).await;
    }
    for (table, column) in TABLES.iter().rev() {
        run(&pool, &format!("delete from public.{table} where {column} > {height}")).await;
    }
    run(&pool, "vacuum analyze public.blocks, public.transactions, public.events").await;
    pool.close().await;
    site
}

/// Lets the chain grow to `height`.
pub(crate) async fn grow(pool: &PgPool, height: u64) {
    for (table, column) in TABLES {
        run(
            pool,
            &format!(
                "with moved as (delete from waiting.{table} where {column} <= {height} returning *)
                 insert into public.{table} select * from moved"
            ),
        )
        .await;
    }
}

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}

/// Cuts with these parameters; the manifest, and the event that says what was reused.
pub(crate) async fn cut(service: &ServiceProcess, pool: &PgPool, params: Value) -> (Manifest, Value) {
    let started: Value = service.create(&params).await.json().await.unwrap();
    let run = started["runId"].as_str().unwrap().to_owned();
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let bytes = service.get("/snapshots/latest").await.bytes().await.unwrap();
    let sql = "select data from snapshots.event where run_id = $1::uuid and kind = 'snapshot.reuse'";
    let reuse: Option<Value> = sqlx::query_scalar(sql).bind(&run).fetch_optional(pool).await.unwrap();
    (Manifest::from_bytes(&bytes).unwrap(), reuse.unwrap_or_default())
}

/// Cuts a snapshot that is published and never promoted, as where its drill could not be made; its id.
pub(crate) async fn cut_unpromoted(service: &ServiceProcess, pool: &PgPool) -> String {
    let hold = Hold::on_success(pool, "publish").await;
    let run = service.start_run().await;
    hold.reached().await;
    assert_eq!(service.post(&format!("/runs/{run}/cancel")).await.status(), 202);
    hold.release().await;
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    let sql = "select id from snapshots.snapshot where run_id = $1::uuid and state = 'published' and promoted_at is null";
    sqlx::query_scalar(sql).bind(&run).fetch_one(pool).await.unwrap()
}

/// File names of chunks of `now` that `before` has not, by content.
pub(crate) fn changed(before: &Manifest, now: &Manifest) -> BTreeSet<String> {
    let known: BTreeSet<&String> = before.chunks.iter().map(|chunk| &chunk.sha256).collect();
    now.chunks.iter().filter(|chunk| !known.contains(&chunk.sha256)).map(Chunk::file_name).collect()
}

/// File names as a set.
pub(crate) fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// Every row of the snapshot equals the database's.
pub(crate) async fn equals_source(pool: &PgPool, manifest: &Manifest) {
    let report = verify::database(pool, manifest, Subject::Source, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
}

/// Counters of a backend reach others only once it is idle.
pub(crate) async fn until_counted(pool: &PgPool, column: &str, at_least: i64) {
    let sql = format!("select coalesce(sum({column}), 0)::bigint from pg_stat_user_tables where schemaname = 'public'");
    let sql: &'static str = sql.leak();
    wait_until(PATIENCE, "PostgreSQL has counted the write", async || {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        found >= at_least
    })
    .await;
}

/// A write counter of PostgreSQL, summed over `public`.
pub(crate) async fn counted(pool: &PgPool, column: &str) -> i64 {
    let sql = format!("select coalesce(sum({column}), 0)::bigint from pg_stat_user_tables where schemaname = 'public'");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

/// Runs a repair that changes rows, and waits until the server has counted it.
pub(crate) async fn repair(pool: &PgPool, column: &str, statements: &[&'static str]) {
    let before = counted(pool, column).await;
    let mut rows = 0;
    for sql in statements {
        rows += sqlx::query(*sql).execute(pool).await.unwrap().rows_affected().cast_signed();
    }
    assert!(rows > 0, "nothing was repaired");
    until_counted(pool, column, before + rows).await;
}
