//! kill -9 in the middle of a restore, and the same command again: exactly once, whatever was killed when.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use snapshot::verify::{self, Subject};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::process::Child;

use crate::support::{Site, TestDatabase, database, published, run, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(site: &Site, target: &TestDatabase) -> Child {
    let mut command = site.client("restore", &site.published(), target.url());
    command.args(["--jobs=2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn has_table(pool: &PgPool, table: &str) -> bool {
    sqlx::query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(pool).await.unwrap()
}

/// Keeps everybody from statements that need more than this lock allows; granted between two of them.
async fn hold(pool: &PgPool, statement: &'static str) -> Transaction<'static, Postgres> {
    let mut holder = pool.begin().await.unwrap();
    sqlx::raw_sql(statement).execute(&mut *holder).await.unwrap();
    holder
}

async fn somebody_waits(pool: &PgPool) -> bool {
    let sql = "select exists (select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database()))";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// When each chunk was loaded.
async fn loaded(pool: &PgPool) -> BTreeMap<(String, i64), String> {
    let sql = "select table_name, from_height, loaded_at::text from snapshots_restore.chunk";
    let rows: Vec<(String, i64, String)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    rows.into_iter().map(|(table, from, at)| ((table, from), at)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_among_rows_and_among_indexes_it_goes_on_where_it_was_and_ends_with_the_snapshot() {
    let site = site_with_chain(3_200).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    let target = database().await;
    let pool = target.pool().await;

    let mut first = start(&site, &target);
    wait_until(PATIENCE, "the tables are made", async || has_table(&pool, "public.events").await).await;
    let holder = hold(&pool, "lock table public.events in share mode").await;
    wait_until(PATIENCE, "a chunk waits", async || somebody_waits(&pool).await).await;
    first.kill().await.unwrap();
    holder.rollback().await.unwrap();
    let before = loaded(&pool).await;
    assert!(before.len() < manifest.chunks.len(), "it was killed too late to show anything");

    // A newer snapshot must not be mixed into what is there.
    let newer = service.cut().await;
    service.terminate().await;
    let holder = hold(&pool, "lock table public.events in row exclusive mode").await;
    let mut second = start(&site, &target);
    wait_until(PATIENCE, "all rows are there", async || loaded(&pool).await.len() == manifest.chunks.len()).await;
    wait_until(PATIENCE, "an index waits", async || somebody_waits(&pool).await).await;
    let rows = loaded(&pool).await;
    second.kill().await.unwrap();
    holder.rollback().await.unwrap();
    // Every row is there, and it is no database to work with.
    let verify = run(site.client("verify", &site.published(), target.url()).args(["--database", "--deep"])).await;
    verify.error_with(5, &["has come to its end", "run `snapshots restore` again"]);

    let other = run(site.client("restore", &site.published(), target.url()).args(["--id", &newer.snapshot_id])).await;
    other.error_with(6, &[&manifest.snapshot_id, "unfinished", &newer.snapshot_id]);
    let result = run(site.client("restore", &site.published(), target.url()).arg("--deep")).await.result();
    assert_eq!(result["snapshot"], manifest.path().to_string());
    assert_eq!((&result["outcome"]["rows"], &result["proved"]), (&0.into(), &true.into()));
    assert_eq!(result["outcome"]["chunksBefore"], manifest.chunks.len());
    let after = loaded(&pool).await;
    assert_eq!(after, rows, "something was loaded twice");
    assert!(before.iter().all(|(chunk, at)| after.get(chunk) == Some(at)), "a chunk of the first run was loaded again");
    let report = verify::database(&pool, &manifest, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
    let again = run(&mut site.client("restore", &site.published(), target.url())).await;
    again.error_with(6, &["complete", "snapshots update"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_an_index_and_its_key_it_only_adds_the_key() {
    let (site, manifest) = published(600).await;
    let target = database().await;
    let pool = target.pool().await;
    let mut first = start(&site, &target);
    wait_until(PATIENCE, "the tables are made", async || has_table(&pool, "public.events").await).await;
    // Rows go on beside this, indexes do not; indexes go on beside a share lock, keys do not.
    let indexes = hold(&pool, "lock table public.events in row exclusive mode").await;
    wait_until(PATIENCE, "an index waits", async || somebody_waits(&pool).await).await;
    let keys = tokio::spawn({
        let pool = pool.clone();
        async move { hold(&pool, "lock table public.events in share mode").await }
    });
    let asked = "select exists (select from pg_stat_activity where query = 'lock table public.events in share mode' and wait_event_type = 'Lock')";
    wait_until(PATIENCE, "the lock is asked for", async || sqlx::query_scalar(asked).fetch_one(&pool).await.unwrap()).await;
    indexes.rollback().await.unwrap();
    let keys = keys.await.unwrap();
    let index = "public.events_pkey";
    wait_until(PATIENCE, "the key waits", async || has_table(&pool, index).await && somebody_waits(&pool).await).await;
    first.kill().await.unwrap();
    // A session that waits, as one that builds, looks for its client now and then: nobody has to wait for the end of what it does.
    let gone = "select not exists (select from pg_stat_activity
                where application_name = 'snapshots restore' and datname = current_database())";
    wait_until(PATIENCE, "the server notices", async || sqlx::query_scalar(gone).fetch_one(&pool).await.unwrap()).await;
    keys.rollback().await.unwrap();
    let key = "select count(*) from pg_constraint where conname = 'events_pkey'";
    let keys: i64 = sqlx::query_scalar(key).fetch_one(&pool).await.unwrap();
    let built =
        async || sqlx::query_scalar::<_, i64>("select $1::regclass::oid::bigint").bind(index).fetch_one(&pool).await.unwrap();
    let (before, result) =
        (built().await, run(site.client("restore", &site.published(), target.url()).arg("--deep")).await.result());
    assert_eq!((keys, &result["proved"], before), (0, &true.into(), built().await));
    let keys: i64 = sqlx::query_scalar(key).fetch_one(&pool).await.unwrap();
    assert_eq!(keys, 1);
    assert!(verify::database(&pool, &manifest, Subject::Restored, 2).await.unwrap().proved());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_restores_of_one_database_do_not_meet_and_ctrl_c_says_how_to_go_on() {
    let (site, _) = published(1_000).await;
    let target = database().await;
    let pool = target.pool().await;
    let first = start(&site, &target);
    wait_until(PATIENCE, "the tables are made", async || has_table(&pool, "public.kysely_migration").await).await;
    let holder = hold(&pool, "lock table public.events in share row exclusive mode").await;
    wait_until(PATIENCE, "it waits", async || somebody_waits(&pool).await).await;
    run(&mut site.client("restore", &site.published(), target.url())).await.error_with(7, &["another restore"]);
    let pid = nix::unistd::Pid::from_raw(first.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(first.wait_with_output().await.unwrap().status.code(), Some(130));
    holder.rollback().await.unwrap();
    assert_eq!(run(&mut site.client("restore", &site.published(), target.url())).await.result()["proved"], true);
}
