//! `snapshots restore` ends with the database that was snapshotted, wherever it is published and however bad the line is.

use snapshot::manifest::Manifest;
use snapshot::verify::{self, Subject};
use sqlx::PgPool;

use crate::support::{FlakyServer, TestDatabase, database, run, site_with_chain};

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
    let site = site_with_chain(1_200).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
    let server = FlakyServer::start(site.objects()).await;
    let source = site.database.pool().await;

    let (target, url) = owned_by_a_plain_role().await;
    let result = run(site.client("restore", &server.url, &url).arg("--deep")).await.result();
    let pool = target.pool().await;
    assert_equal(&pool, &manifest).await;
    assert_eq!((&result["proved"], &result["blockHeight"]), (&true.into(), &manifest.block_height.into()));
    assert_eq!(result["outcome"]["rows"], manifest.tables.values().map(|table| table.rows).sum::<u64>());
    assert_eq!(definitions(&pool).await, definitions(&source).await);

    let from = format!("s3://{}", site.bucket.name());
    let config = site.bucket.config();
    let target = database().await;
    let mut command = site.client("restore", &from, target.url());
    command.env("S3_ENDPOINT", site.bucket.endpoint()).env("AWS_REGION", &config.region);
    command.env("AWS_ACCESS_KEY_ID", &config.access_key).env("AWS_SECRET_ACCESS_KEY", &config.secret_key);
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
    let site = site_with_chain(2_500).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
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
async fn a_bucket_that_hides_what_is_not_there_is_restored_from_by_id_too() {
    let site = site_with_chain(600).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
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
