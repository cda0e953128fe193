//! After a restore the original's services can start, and the missed blocks bring back the database that was lost.

use sqlx::PgPool;

use crate::support::{database, run, runbook, site};

/// Rows of the canonical chain without what differs by nature: row ids and the time of writing.
async fn chain(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select 'b ' || (to_jsonb(b) - 'created_at')::text from public.blocks b
         union all select 't ' || (to_jsonb(t) - 'created_at')::text from public.transactions t
         union all select 'e ' || (to_jsonb(e) - 'created_at' - 'id')::text from public.events e order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn scalar(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

async fn migrations(pool: &PgPool) -> Vec<(String, String)> {
    sqlx::query_as("select name, timestamp from public.kysely_migration order by 1").fetch_all(pool).await.unwrap()
}

async fn tables(pool: &PgPool) -> Vec<String> {
    let sql = "select table_name || '.' || column_name || ' ' || data_type || coalesce(column_default, '') from information_schema.columns where table_schema = 'public' order by 1";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

/// What the original asks of a database before it goes on.
async fn assert_ready(pool: &PgPool, source: &PgPool, height: i64) {
    assert_eq!(tables(pool).await, tables(source).await, "(1) all tables of the migrations");
    let names = migrations(pool).await;
    assert_eq!(names, migrations(source).await, "(1) the same migrations");
    assert!(names.first().unwrap().0.starts_with("0001") && names.last().unwrap().0.starts_with("0014"), "{names:?}");
    assert_eq!(scalar(pool, "select count(*) from public.kysely_migration_lock where is_locked = 0").await, 1);
    let gaps = "select max(height) - min(height) + 1 - count(*) filter (where canonical) from public.blocks";
    assert_eq!(scalar(pool, gaps).await, 0, "(2) contiguous and canonical");
    let links =
        "select count(*) from public.blocks b join public.blocks p on p.height = b.height - 1 where b.parent_hash <> p.hash";
    assert_eq!(scalar(pool, links).await, 0, "(2) parent links");
    let above = "select greatest((select max(height) from public.blocks), (select max(block_height) from public.events), (select max(block_height) from public.transactions))";
    assert_eq!(scalar(pool, above).await, height, "(2) nothing above");
    let progress: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "select network, last_indexed_block, last_contiguous_block, highest_seen_block from public.index_progress",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(progress, [("mainnet".to_owned(), height, height, height)], "(3)");
    let tenants =
        "select (select count(*) from public.views) + (select count(*) from public.jobs) + (select count(*) from public.streams)";
    assert_eq!(scalar(pool, tenants).await, 0, "(4) no view ahead of the chain, no job in flight");
    let statistics =
        "select count(*) from pg_stat_user_tables where schemaname = 'public' and relname = any('{blocks,transactions,events}')
                      and last_vacuum is not null and last_analyze is not null";
    assert_eq!(scalar(pool, statistics).await, 3, "(5) vacuumed and analyzed");
    let sequences = "select count(*) from pg_class where relkind = 'S' and relnamespace = 'public'::regnamespace";
    assert_eq!(scalar(pool, sequences).await, scalar(source, sequences).await, "(6) sequences");
}

#[tokio::test(flavor = "multi_thread")]
async fn yesterdays_snapshot_and_the_missed_blocks_are_the_lost_database() {
    let site = site().await;
    let recording = site.dir.path().join("node.jsonl.gz");
    let made = crate::support::bare_command(&["chain", "generate", "--json", "--blocks", "1100", "--seed", "5", "--out"])
        .arg(&recording)
        .output()
        .await;
    assert!(made.unwrap().status.success());
    let ingest = async |url: &str| {
        let mut command = crate::support::bare_command(&["ingest", "--json"]);
        run(command.arg(&recording).env("DATABASE_URL", url)).await.result()
    };
    ingest(site.database.url()).await;
    let lost = site.database.pool().await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
    let tip = scalar(&lost, "select max(height) from public.blocks").await;
    assert!(manifest.block_height.cast_signed() < tip, "nothing was missed");

    // What an operator does, as the runbook says it.
    let book = runbook("disaster-recovery");
    let target = database().await;
    let keys = site.public_keys();
    let (published, recording) = (site.published(), recording.to_str().unwrap().to_owned());
    let env = [
        ("SNAPSHOTS_FROM", published.as_str()),
        ("SNAPSHOTS_PUBLIC_KEY", &keys),
        ("DATABASE_URL", target.url()),
        ("RECORDING", &recording),
    ];
    book.run("Restore the public snapshot", site.dir.path(), &env).await;
    let pool = target.pool().await;
    assert_ready(&pool, &lost, manifest.block_height.cast_signed()).await;
    assert_ne!(chain(&pool).await, chain(&lost).await);

    // The recording begins below the snapshot's height and goes beyond it.
    book.run("Feed the missed blocks", site.dir.path(), &env).await;
    assert_eq!(chain(&pool).await, chain(&lost).await);
    assert_eq!(scalar(&pool, "select last_contiguous_block from public.index_progress").await, tip);
    book.was_run();
}
