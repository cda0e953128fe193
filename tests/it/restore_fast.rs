//! `snapshots restore --fast`: a transaction per table, indexes of what is there built meanwhile, next to no WAL where the server
//! is set so.

use std::process::Stdio;
use std::time::Duration;

use snapshot::verify::{self, Subject};
use sqlx::PgPool;
use workers::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};

use crate::support::{database, published, run, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

async fn yes(pool: &PgPool, sql: &'static str) -> bool {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// When each chunk of a table was loaded.
async fn loaded(pool: &PgPool, table: &str) -> Vec<(i64, String)> {
    let sql = "select from_height, loaded_at::text from snapshots_restore.chunk where table_name = $1 order by 1";
    sqlx::query_as(sql).bind(table).fetch_all(pool).await.unwrap()
}

/// Stops whoever makes the table transactions until the lock 7 is free; events is there by then, and has no rows.
const STOP_AT_TRANSACTIONS: &str = "
    create schema hold;
    create function hold.wait() returns event_trigger language plpgsql as $$ begin
        if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.transactions') then
            perform pg_advisory_xact_lock(7);
        end if;
    end $$;
    create event trigger hold on ddl_command_end when tag in ('CREATE TABLE') execute function hold.wait()";

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_built_while_the_largest_table_loads_and_a_kill_costs_only_that() {
    let (site, manifest) = published(1_500).await;
    let target = database().await;
    let pool = target.pool().await;
    sqlx::raw_sql(STOP_AT_TRANSACTIONS).execute(&pool).await.unwrap();
    let mut stopper = pool.begin().await.unwrap();
    sqlx::raw_sql("select pg_advisory_xact_lock(7)").execute(&mut *stopper).await.unwrap();
    let mut command = site.client("restore", &site.published(), target.url());
    let mut first = command.args(["--jobs=2", "--fast"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stopped = "select exists (select from pg_locks l join pg_database d on d.oid = l.database
                   where l.locktype = 'advisory' and l.objid = 7 and not l.granted and d.datname = current_database())";
    wait_until(PATIENCE, "the tables are being made", async || yes(&pool, stopped).await).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table public.events in share mode").execute(&mut *holder).await.unwrap();
    stopper.rollback().await.unwrap();
    let indexed = "select count(*) = 4 from pg_indexes where tablename = 'transactions' and schemaname = 'public'";
    let all = "select count(*) from pg_indexes where tablename = 'transactions' and schemaname = 'public'";
    let source: i64 = sqlx::query_scalar(all).fetch_one(&site.database.pool().await).await.unwrap();
    assert_eq!(source, 4);
    wait_until(PATIENCE, "transactions have all their indexes", async || yes(&pool, indexed).await).await;
    first.kill().await.unwrap();
    holder.rollback().await.unwrap();
    let transactions = loaded(&pool, "transactions").await;
    assert!(!transactions.is_empty() && loaded(&pool, "events").await.is_empty());

    let result = run(site.client("restore", &site.published(), target.url()).args(["--fast", "--deep"])).await.result();
    assert_eq!(result["proved"], true);
    assert_eq!(result["outcome"]["rows"], manifest.tables["events"].rows, "only events were loaded by this run");
    assert_eq!(loaded(&pool, "transactions").await, transactions);
    assert!(verify::database(&pool, &manifest, Subject::Restored, 2).await.unwrap().proved());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_writes_minimal_wal_a_fast_restore_writes_next_to_none() {
    let (site, manifest) = published(1_500).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let options = || PostgresOptions { durability: Durability::Ephemeral, ..PostgresOptions::new(dir.path()) };
    let server = EmbeddedPostgres::start(options()).await.unwrap();
    let pool = PgPool::connect(server.url()).await.unwrap();
    for setting in ["wal_level = minimal", "max_wal_senders = 0"] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("alter system set {setting}"))).execute(&pool).await.unwrap();
    }
    pool.close().await;
    server.stop().await.unwrap();
    let server = EmbeddedPostgres::start(options()).await.unwrap();
    let pool = PgPool::connect(server.url()).await.unwrap();
    assert!(yes(&pool, "select current_setting('wal_level') = 'minimal'").await);

    let mut written = Vec::new();
    for (name, fast) in [("slow", None), ("fast", Some("--fast"))] {
        server.create_database(name).await.unwrap();
        let before: i64 = position(&pool).await;
        let mut command = site.client("restore", &site.published(), &server.url_of(name));
        assert_eq!(run(command.args(fast)).await.result()["proved"], true);
        written.push(position(&pool).await - before);
        let restored = PgPool::connect(&server.url_of(name)).await.unwrap();
        assert!(verify::database(&restored, &manifest, Subject::Restored, 2).await.unwrap().proved());
        restored.close().await;
    }
    // What is below `wal_skip_threshold`, 2 MB, is written to the WAL all the same; a larger chain has little of that.
    assert!(written[1] * 3 < written[0], "bytes of WAL: {written:?}");
    pool.close().await;
    server.stop().await.unwrap();
}

/// Bytes of WAL written so far.
async fn position(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetch_one(pool).await.unwrap()
}
