//! Servers and directories that are not as they must be: each is one clear error with its exit code, and nothing is left.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::support::{Home, Ran, ServiceProcess, Site, bare_command, home, run, site};

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const SERVE: [&str; 4] = ["serve", "--json", "--listen", "127.0.0.1:0"];

/// `serve` on the site's servers with some variables changed.
async fn serve_with(site: &Site, changed: &[(&str, &str)]) -> Ran {
    run(site.command().args(SERVE).envs(changed.iter().copied())).await
}

/// `serve` with everything embedded.
async fn serve_in(home: &Home, flags: &[&str]) -> Ran {
    run(bare_command(&SERVE).args(["--data-dir", home.text()]).args(flags)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_engine_ends_by_itself_ends_and_says_why() {
    let site = site().await;
    assert_eq!(run(site.command().arg("migrate")).await.code, Some(0));
    let pool = site.database.pool().await;
    let sql = "create function break_it() returns trigger language plpgsql as $$ begin raise 'broken'; end $$; \
        create trigger break_it before insert on snapshots.worker for each row execute function break_it()";
    sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    serve_with(&site, &[]).await.error_with(1, &["cannot register this worker"]);
    assert!(!site.dir.path().join("service.json").exists(), "its address is taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_unreachable_within_seconds() {
    let site = site().await;
    let url = format!("postgres://me:secret@127.0.0.1:{}/chain", closed_port());
    let begun = Instant::now();
    let ran = serve_with(&site, &[("DATABASE_URL", &url)]).await;
    ran.error_with(9, &["DATABASE_URL", "refused"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "it waited in vain");
    assert!(!ran.stdout.contains("secret") && !ran.stderr.contains("secret"));
    serve_with(&site, &[("CONTROL_DATABASE_URL", &url)]).await.error_with(9, &["CONTROL_DATABASE_URL"]);
    serve_with(&site, &[("DATABASE_URL", "127.0.0.1/chain")]).await.error_with(2, &["DATABASE_URL", "postgres://"]);
    let recording = site.dir.path().join("posts.ndjson");
    std::fs::write(&recording, "").unwrap();
    let ingest = run(site.command().args(["ingest", "--json"]).arg(&recording).env("DATABASE_URL", &url)).await;
    ingest.error_with(9, &["DATABASE_URL"]);
    run(site.command().args(["migrate", "--json"]).env("DATABASE_URL", &url)).await.error_with(9, &["DATABASE_URL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_is_missing_rights_and_a_missing_database_is_not_found() {
    let site = site().await;
    let pool = site.database.pool().await;
    let role = format!("role_{}", site.database.name());
    let admin = |sql: String| {
        let pool = pool.clone();
        async move { sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap() }
    };
    admin(format!("create role {role} login; revoke create, temporary on database {} from public", site.database.name())).await;
    let as_role = site.database.url().replace("postgres@", &format!("{role}@"));
    serve_with(&site, &[("DATABASE_URL", &as_role)]).await.error_with(8, &["permission denied", "rights"]);
    let tables: i64 = sqlx::query_scalar("select count(*) from pg_tables where schemaname in ('public', 'snapshots')")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(tables, 0);
    let nobody = site.database.url().replace("postgres@", "nobody_there@");
    serve_with(&site, &[("DATABASE_URL", &nobody)]).await.error_with(8, &["nobody_there", "role"]);
    let nowhere = site.database.url().replace(site.database.name(), "nowhere");
    serve_with(&site, &[("DATABASE_URL", &nowhere)]).await.error_with(4, &["nowhere", "create the database"]);
    admin(format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_says_which_and_why() {
    let site = site().await;
    let endpoint = format!("http://127.0.0.1:{}", closed_port());
    serve_with(&site, &[("S3_ENDPOINT", &endpoint)]).await.error_with(9, &[&endpoint, "S3_ENDPOINT"]);
    serve_with(&site, &[("AWS_SECRET_ACCESS_KEY", "wrong")]).await.error_with(8, &[site.bucket.name(), "AWS_"]);
    serve_with(&site, &[("S3_BUCKET", "no-such-bucket")]).await.error_with(4, &["no-such-bucket", "S3_BUCKET"]);
    serve_with(&site, &[("AWS_ACCESS_KEY_ID", ""), ("PUBLIC_BASE_URL", "")])
        .await
        .error_with(2, &["AWS_ACCESS_KEY_ID, PUBLIC_BASE_URL"]);
    serve_with(&site, &[("S3_BUCKET", "")]).await.error_with(2, &["S3_ENDPOINT is set but S3_BUCKET is not"]);
    assert!(site.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_open_or_taken_is_refused() {
    let home = home();
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let ran = run(bare_command(&["serve", "--json", "--listen", open, "--data-dir", home.text()])).await;
        ran.error_with(6, &[open, "authentication"]);
    }
    assert!(home.names().is_empty(), "something was started first");

    let site = site().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(site.command().args(["serve", "--json", "--listen", &address])).await.error_with(7, &[&address, "--listen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_serves_one_service() {
    let site = site().await;
    let service = site.serve().await;
    let pid = service.child.id().unwrap().to_string();
    serve_with(&site, &[]).await.error_with(7, &[&pid, "--data-dir"]);
    assert_eq!(service.get("/readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_is_named() {
    let site = site().await;
    let file = site.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    serve_with(&site, &[("SNAPSHOTS_DATA_DIR", file)]).await.error_with(1, &[file, "--data-dir"]);

    if !Uid::effective().is_root() {
        println!("skipped: only root drops to another account");
        return;
    }
    let home = home();
    std::fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    let inner = home.path().join("inner");
    let ran = run(bare_command(&SERVE).arg("--data-dir").arg(&inner)).await;
    ran.error_with(8, &[home.text(), "cannot be entered", "--data-dir"]);
    assert!(!inner.join("postgres/data").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_programs_of_postgres_a_service_says_how_to_get_them() {
    let home = home();
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    serve_in(&home, &["--pg-bin", empty]).await.error_with(4, &[empty, "initdb", "--pg-bin", "DATABASE_URL"]);
    let demo = run(bare_command(&["demo", "--json", "--once", "--pg-bin", empty, "--data-dir", home.text()])).await;
    demo.error_with(4, &[empty, "initdb"]);
    assert!(!home.path().join("postgres").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_server_elsewhere_pg_dump_alone_is_needed_and_must_be_new_enough() {
    let site = site().await;
    let tools = site.dir.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let pg_dump = tools.join("pg_dump");
    let dir = tools.to_str().unwrap();
    serve_with(&site, &[("SNAPSHOTS_PG_BIN", dir)]).await.error_with(4, &[dir, "no `pg_dump`", "--role api"]);
    std::fs::write(&pg_dump, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n").unwrap();
    std::fs::set_permissions(&pg_dump, Permissions::from_mode(0o755)).unwrap();
    serve_with(&site, &[("SNAPSHOTS_PG_BIN", dir)]).await.error_with(4, &["version 9", "postgresql-client-", "--pg-bin"]);

    std::fs::write(&pg_dump, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.1'\n").unwrap();
    let mut command = site.command();
    command.args(SERVE).env("SNAPSHOTS_PG_BIN", dir).stdout(Stdio::piped());
    let service = ServiceProcess::start(command).await;
    assert_eq!(service.get("/readyz").await.status(), 200);
}
