//! `snapshots restore` ends with the database that was snapshotted, wherever it is published and however bad the line is.

use axum::http::Method;
use snapshot::manifest::Manifest;
use snapshot::verify::{self, Subject};
use sqlx::PgPool;

use crate::support::{Asked, Fault, FaultProxy, FlakyServer, TestDatabase, database, published, run};

/// A database that belongs to a role without any other right, and its URL for that role.
async fn owned_by_a_plain_role() -> (TestDatabase, String) {
    let target = database().await;
    let role = format!("plain_{}", target.name());
    let sql =
        format!("create role {role} login nosuperuser nocreatedb nocreaterole; alter database {} owner to {role}", target.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&target.pool().await).await.unwrap();
    let url = target.url().replace("postgres://postgres@", &format!("postgres://{role}@"));
    (target, url)
}

async fn assert_equal(pool: &PgPool, manifest: &Manifest) {
    let report = verify::database(pool, manifest, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
}

/// Definitions of all indexes and constraints, as text, and whether each constraint was checked.
async fn definitions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select indexdef from pg_indexes where schemaname = 'public'
         union all select conrelid::regclass::text || pg_get_constraintdef(oid) || convalidated from pg_constraint where connamespace = 'public'::regnamespace
         union all select relname || tgname from pg_trigger join pg_class c on c.oid = tgrelid
                   where not tgisinternal and relnamespace = 'public'::regnamespace
         order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restored_database_is_the_snapshot_from_an_address_a_bucket_or_a_directory_and_for_a_plain_role() {
    let (site, manifest) = published(1_200).await;
    let server = FlakyServer::start(site.objects()).await;
    let source = site.database.pool().await;

    let (target, url) = owned_by_a_plain_role().await;
    let result = run(site.client("restore", &server.url, &url).arg("--deep")).await.result();
    let pool = target.pool().await;
    assert_equal(&pool, &manifest).await;
    assert_eq!((&result["proved"], &result["blockHeight"]), (&true.into(), &manifest.block_height.into()));
    assert_eq!(result["outcome"]["rows"], manifest.tables.values().map(|table| table.rows).sum::<u64>());
    assert_eq!(definitions(&pool).await, definitions(&source).await);

    let target = database().await;
    let mut command = site.client_of_bucket("restore", site.bucket.endpoint(), target.url());
    let ran = run(command.arg("--jobs=1")).await;
    let steps: Vec<_> = ran.lines().into_iter().filter(|line| line["type"] == "step").map(|line| line["name"].clone()).collect();
    assert_eq!(steps, ["check", "tables", "rows", "indexes", "foreign keys", "progress", "vacuum", "verify"]);
    assert_eq!(ran.result()["proved"], true);
    assert_equal(&target.pool().await, &manifest).await;

    let target = database().await;
    let mut command = site.client("restore", &site.published(), target.url());
    assert_eq!(run(command.args(["--check-first", "--fast"])).await.result()["proved"], true);
    let pool = target.pool().await;
    assert_equal(&pool, &manifest).await;
    assert_eq!(definitions(&pool).await, definitions(&source).await);
    let unfrozen: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where oid = any('{public.blocks,public.transactions,public.events}'::regclass[]) and relallvisible < relpages",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(unfrozen, 0, "rows of a fast restore were not written frozen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flaky_server_costs_ranges_sent_again_and_never_a_restart() {
    let (site, manifest) = published(2_500).await;
    let server = FlakyServer::start(site.objects()).await;
    let smooth = database().await;
    run(&mut site.client("restore", &server.url, smooth.url())).await.result();
    let needed = server.sent();

    server.be_flaky(true);
    let target = database().await;
    let result = run(&mut site.client("restore", &server.url, target.url())).await.result();
    assert_equal(&target.pool().await, &manifest).await;
    assert!(result["retries"].as_u64().unwrap() > 10, "{result}");
    let sent = server.sent() - needed;
    assert!(sent < needed * 5 / 4, "{sent} bytes were sent for {needed}: objects were fetched again from their start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cuts_every_connection_costs_ranges_too() {
    const CUTS: u32 = 7;
    let (site, manifest) = published(1_500).await;
    let large: Vec<String> = manifest.chunks.iter().filter(|chunk| chunk.bytes > 300_000).map(|c| c.sha256.clone()).collect();
    assert!(large.len() >= 2, "nothing is large enough to be cut often");
    let known = large.clone();
    let cut = move |asked: &Asked| asked.method == Method::GET && known.iter().any(|sha256| asked.path.contains(sha256));
    let proxy =
        FaultProxy::start(site.bucket.endpoint(), move |asked| (cut(asked) && asked.before < CUTS).then_some(Fault::CutAnswer))
            .await;
    let target = database().await;
    let result = run(&mut site.client_of_bucket("restore", &proxy.url, target.url())).await.result();
    assert_equal(&target.pool().await, &manifest).await;
    let faults = proxy.faults();
    assert_eq!(faults.len(), large.len() * CUTS as usize);
    assert_eq!(result["retries"], faults.len());
    let again = faults.iter().filter(|(asked, _)| asked.before > 0);
    assert!(again.clone().all(|(asked, _)| asked.range.is_some()), "an object was asked for from its start again");
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_a_server_does_not_tell_are_not_missing_objects() {
    let (site, manifest) = published(600).await;
    let server = FlakyServer::start(site.objects()).await;
    server.hide_lengths();
    let target = database().await;
    assert_eq!(run(&mut site.client("restore", &server.url, target.url())).await.result()["proved"], true);
    assert_eq!(run(&mut site.client("verify", &server.url, target.url())).await.result()["proved"], true);
    let chunk = manifest.chunks.iter().find(|chunk| chunk.table == "events").unwrap();
    let path = site.objects().join(snapshot::key::Key::Chunk(chunk.sha256.clone()).to_string());
    std::fs::write(&path, "damaged").unwrap();
    run(&mut site.client("verify", &server.url, target.url())).await.error_with(5, &["instead of"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_hides_what_is_not_there_is_restored_from_by_id_too() {
    let (site, manifest) = published(600).await;
    let server = FlakyServer::start(site.objects()).await;
    server.hide_missing();
    for which in [&[][..], &["--network", "mainnet", "--id", &manifest.snapshot_id]] {
        let target = database().await;
        assert_eq!(
            run(site.client("restore", &server.url, target.url()).args(which)).await.result()["proved"],
            true,
            "{which:?}"
        );
    }
}

#[tokio::test]
async fn a_session_that_loads_sends_pages_to_the_disk_as_it_goes() {
    let target = database().await;
    let pool = snapshot::load::connect(target.url(), 1).await.unwrap();
    let after: String = sqlx::query_scalar("show backend_flush_after").fetch_one(&pool).await.unwrap();
    assert_eq!(after, "2MB");
}
