//! The private PostgreSQL server: made, adopted, guarded and taken away.
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::{Pid, Uid};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use workers::embedded::account::Account;
use workers::embedded::data_dir::DataDir;
use workers::embedded::discover;
use workers::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};

use crate::embedded_child::Service;
use crate::support;

/// A directory that the account PostgreSQL runs as can enter.
fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    dir
}

fn quick(dir: &Path) -> PostgresOptions {
    PostgresOptions { durability: Durability::Ephemeral, ..PostgresOptions::new(dir) }
}

async fn scalar(url: &str, sql: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn each_test_gets_a_database_that_sqlx_and_psql_reach_by_the_same_url() {
    let database = support::database().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query("create table here (id int)").execute(&mut connection).await.unwrap();
    let output = Command::new(support::pg_bin().join("psql"))
        .args(["-X", "-At", "-d", database.url(), "-c", "select current_database(), count(*) from here"])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{}|0", database.name()));
    let other = support::database().await;
    let mut connection = PgConnection::connect(other.url()).await.unwrap();
    assert!(sqlx::query("select from here").execute(&mut connection).await.is_err());
}

#[tokio::test]
async fn the_server_runs_unprivileged_on_a_private_socket_in_utf8() {
    let dir = open_directory();
    let server = EmbeddedPostgres::start(PostgresOptions::new(dir.path().join("postgres"))).await.unwrap();
    let account = Account::choose().unwrap();
    assert!(account.uid() != 0);
    for path in [server.data_dir(), server.socket_dir().to_owned()] {
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (account.uid(), 0o700), "{}", path.display());
    }
    for (sql, expected) in [
        ("select current_setting('listen_addresses')", ""),
        ("select current_setting('server_encoding')", "UTF8"),
        ("select current_setting('fsync')", "on"),
        ("select current_database()::text", "secondlayer"),
        // Where the server was built with it, its WAL is compressed the cheap way.
        (
            "select (setting = case when 'lz4' = any(enumvals) then 'lz4' else 'pglz' end)::text from pg_settings where name = 'wal_compression'",
            "true",
        ),
    ] {
        assert_eq!(scalar(server.url(), sql).await, expected, "{sql}");
    }
    server.stop().await.unwrap();
    assert!(!dir.path().join("postgres/data/postmaster.pid").exists());
}

#[tokio::test]
async fn a_server_left_by_a_killed_process_is_adopted_with_its_data_and_stops_on_request() {
    let dir = open_directory();
    let service = Service::start(Some(dir.path())).await;
    let refused = DataDir::open(dir.path()).unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", service.said["pid"])), "{refused}");
    let mut connection = PgConnection::connect(service.said["url"].as_str().unwrap()).await.unwrap();
    sqlx::query("create table kept as select 'yes'::text as value").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    service.kill().await;

    let held = DataDir::open(dir.path()).unwrap();
    let server = EmbeddedPostgres::start(PostgresOptions::new(held.postgres_dir())).await.unwrap();
    assert!(server.adopted());
    assert_eq!(scalar(server.url(), "select value from kept").await, "yes");
    server.stop().await.unwrap();
    let server = EmbeddedPostgres::start(PostgresOptions::new(held.postgres_dir())).await.unwrap();
    assert!(!server.adopted());
    assert_eq!(scalar(server.url(), "select value from kept").await, "yes");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_ephemeral_service_leaves_nothing_behind_when_it_is_killed() {
    let said = Service::start(None).await.kill().await;
    let dir = Path::new(said["dir"].as_str().unwrap());
    let postmaster = Pid::from_raw(said["postmaster"].as_i64().unwrap().try_into().unwrap());
    support::wait_until(Duration::from_secs(30), "directory and server are gone", async || {
        !dir.exists() && kill(postmaster, None).is_err()
    })
    .await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one_that_goes_with_the_server() {
    let dir = open_directory();
    let deep = dir.path().join("d".repeat(60)).join("e".repeat(60));
    let server = EmbeddedPostgres::start(quick(&deep)).await.unwrap();
    let socket_dir = server.socket_dir().to_owned();
    assert!(!socket_dir.starts_with(&deep) && socket_dir.is_dir());
    assert_eq!(scalar(server.url(), "select 'up'").await, "up");
    server.stop().await.unwrap();
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn a_directory_closed_to_the_servers_account_is_named_with_the_remedy() {
    if !Uid::effective().is_root() {
        println!("skipped: only root drops to another account");
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    let error = EmbeddedPostgres::start(quick(&closed.path().join("a/b"))).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{} cannot be entered", closed.path().display())), "{error}");
    assert!(error.contains("choose a --data-dir outside of it"), "{error}");
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_refused_and_left_alone() {
    let dir = open_directory();
    let data = dir.path().join("postgres/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let error = discover::find(None, &data).unwrap_err().to_string();
    assert!(error.contains("was made by PostgreSQL 9") && error.contains("pg_upgrade"), "{error}");
    assert!(EmbeddedPostgres::start(quick(&dir.path().join("postgres"))).await.is_err());
    assert_eq!(std::fs::read_to_string(data.join("PG_VERSION")).unwrap(), "9\n");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_in_its_own_words() {
    let dir = open_directory();
    let options =
        || PostgresOptions { settings: vec![("shared_buffers".into(), "plenty".into())], ..quick(&dir.path().join("postgres")) };
    let error = EmbeddedPostgres::start(options()).await.unwrap_err().to_string();
    assert!(error.contains("pg_ctl start failed") && error.contains("plenty"), "{error}");
}
