//! After a restore the original's services can start, and the missed blocks bring back the database that was lost.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Site, add_tenants, bare_command, bucket, database, run, runbook, site};

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

/// The first lines of a recording, as one of its own.
fn first_lines(recording: &Path, count: usize, to: &Path) {
    let text = flate2::read::MultiGzDecoder::new(std::fs::File::open(recording).unwrap());
    let mut file = flate2::write::GzEncoder::new(std::fs::File::create(to).unwrap(), flate2::Compression::fast());
    for line in BufReader::new(text).lines().take(count) {
        writeln!(file, "{}", line.unwrap()).unwrap();
    }
    file.finish().unwrap();
}

async fn ingest(url: &str, recording: &Path) {
    let mut command = bare_command(&["ingest", "--json"]);
    run(command.arg(recording).env("DATABASE_URL", url)).await.result();
}

/// What tenants have, but for what a restore puts right.
async fn tenants(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select 'a ' || to_jsonb(a)::text from public.accounts a union all select 'k ' || to_jsonb(k)::text from public.api_keys k
         union all select 's ' || to_jsonb(s)::text from public.streams s union all select 'd ' || to_jsonb(d)::text from public.deliveries d
         union all select 'v ' || (to_jsonb(v) - 'last_processed_block')::text from public.views v
         union all select 'm ' || to_jsonb(m)::text from view_01234567_moves.moves m where note <> 'ahead' order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Views and jobs as the original's services need them, after a copy of everything at `height`.
async fn assert_settled(pool: &PgPool, height: i64) {
    let views: Vec<(String, i64)> =
        sqlx::query_as("select name, last_processed_block from public.views order by 1").fetch_all(pool).await.unwrap();
    assert_eq!(views, [("moves".to_owned(), height), ("rebuilt".to_owned(), 3)], "(4) no view ahead of the chain");
    let ahead = "select count(*) from view_01234567_moves.moves where note = 'ahead'";
    assert_eq!(scalar(pool, ahead).await, 0, "(4) its rows above go with it");
    let jobs: Vec<(i64, String, bool)> =
        sqlx::query_as("select block_height, status, locked_by is null from public.jobs order by 1")
            .fetch_all(pool)
            .await
            .unwrap();
    let expected = [(5, "completed"), (6, "pending"), (7, "pending"), (8, "failed")];
    assert_eq!(jobs, expected.map(|(height, status)| (height, status.to_owned(), true)), "(4) jobs");
    let sequence =
        "select (select last_value from view_01234567_moves.moves__id_seq) - (select max(_id) from view_01234567_moves.moves)";
    assert!(scalar(pool, sequence).await >= 0, "(6) a sequence is behind its rows");
}

/// A node's recording, and the database that an indexer made of its first part; tenants are in it.
async fn before_the_loss(site: &Site) -> (PathBuf, PgPool) {
    let (recording, first) = (site.dir.path().join("node.jsonl.gz"), site.dir.path().join("first.jsonl.gz"));
    let mut generate = bare_command(&["chain", "generate", "--json", "--blocks", "1100", "--seed", "5", "--out"]);
    run(generate.arg(&recording)).await.result();
    first_lines(&recording, 1_000, &first);
    ingest(site.database.url(), &first).await;
    let lost = site.database.pool().await;
    add_tenants(&lost).await;
    (recording, lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn last_nights_snapshots_and_the_missed_blocks_are_the_lost_database() {
    let site = site().await;
    let (recording, lost) = before_the_loss(&site).await;
    let height = scalar(&lost, "select max(height) from public.blocks").await;
    // Every command is the runbook's.
    let book = runbook("disaster-recovery");
    book.run("Make a recovery key", site.dir.path(), &[]).await;
    let (vault, recipients) = (bucket().await, site.dir.path().join("recovery.recipients"));
    let env = [("SNAPSHOTS_FULL_RECIPIENTS_FILE", recipients.to_str().unwrap()), ("SNAPSHOTS_FULL_BUCKET", vault.name())];
    let service = site.serve_with(&env).await;
    let manifest = service.cut().await;
    service.complete("full_profile", &json!({})).await;
    service.terminate().await;
    book.run("Keep the roles", site.dir.path(), &[("DATABASE_URL", site.database.url())]).await;
    assert!(std::fs::read_to_string(site.dir.path().join("globals.sql")).unwrap().contains("CREATE ROLE postgres"));
    // Schedules are there once a scheduler has begun.
    let scheduling = site.serve_with(&[env[0], env[1], ("SNAPSHOTS_NO_SCHEDULES", "false")]).await;
    book.run("Copy weekly instead", site.dir.path(), &[("SNAPSHOTS_URL", &scheduling.url)]).await;
    scheduling.terminate().await;
    let cron = "select cron from snapshots.schedule where name = 'nightly-full-profile'";
    assert_eq!(sqlx::query_scalar::<_, String>(cron).fetch_one(&lost).await.unwrap(), "30 2 * * 0");
    // It goes on for a while; then it is lost.
    ingest(site.database.url(), &recording).await;
    let tip = scalar(&lost, "select max(height) from public.blocks").await;
    assert!(manifest.block_height.cast_signed() < height && height < tip, "nothing was missed");

    let (full, public) = (database().await, database().await);
    let keys = site.public_keys();
    let (vault, published, reader) = (vault.root(), site.published(), site.dir.path().join("reader"));
    let mirror = site.dir.path().join("mirror");
    let env = [
        ("SNAPSHOTS_FROM", vault.to_str().unwrap()),
        ("SNAPSHOTS_PUBLIC_KEY", &keys),
        ("SNAPSHOTS_DATA_DIR", reader.to_str().unwrap()),
        ("MIRROR", mirror.to_str().unwrap()),
    ];
    book.run("Keep a mirror of the full snapshot", site.dir.path(), &env).await;
    for (heading, from, target) in [
        ("Restore the full snapshot", mirror.to_str().unwrap(), &full),
        ("Restore the public snapshot", published.as_str(), &public),
    ] {
        let env = [
            ("SNAPSHOTS_FROM", from),
            ("SNAPSHOTS_PUBLIC_KEY", &keys),
            ("SNAPSHOTS_DATA_DIR", reader.to_str().unwrap()),
            ("DATABASE_URL", target.url()),
            ("RECORDING", recording.to_str().unwrap()),
        ];
        book.run(heading, site.dir.path(), &env).await;
        let pool = target.pool().await;
        if target.name() == full.name() {
            assert_settled(&pool, height).await;
            assert_eq!(tenants(&pool).await, tenants(&lost).await);
        } else {
            assert_ready(&pool, &lost, manifest.block_height.cast_signed()).await;
        }
        assert_ne!(chain(&pool).await, chain(&lost).await);
        // The recording begins below the snapshot's height and goes beyond it.
        book.run("Feed the missed blocks", site.dir.path(), &env).await;
        assert_eq!(chain(&pool).await, chain(&lost).await);
        assert_eq!(scalar(&pool, "select last_contiguous_block from public.index_progress").await, tip);
    }
    assert_eq!(tenants(&full.pool().await).await, tenants(&lost).await);
    book.was_run();
}
