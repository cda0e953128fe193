//! A drill on a server that somebody lends, killed in the middle: what it made is taken away by the next one, which proves the
//! snapshot and promotes it. And one that there is no room for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{Home, Site, SmallDisk, home, latest, ledger_is_true, own_postgres, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Databases of drills on the server.
async fn databases(pool: &PgPool) -> Vec<String> {
    let sql = "select datname::text from pg_database where starts_with(datname::text, 'snapshots_drill_')";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

/// A database of another service's drill, which is at work from another database of the server.
const STRANGER: &str = "snapshots_drill_0123456789ab_own";

async fn lives_on(pool: &PgPool, url: &str) -> PgConnection {
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {STRANGER}"))).execute(pool).await.unwrap();
    let options: PgConnectOptions = url.parse().unwrap();
    let options = options.database("postgres").application_name("snapshots_drill_0123456789ab_");
    PgConnection::connect_with(&options).await.unwrap()
}

fn promoted(site: &Site) -> bool {
    site.objects().join("mainnet/latest.json").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_drill_leaves_databases_only_until_the_next_one() {
    let (site, drills) = (site_with_chain(1_000).await.with_embedded_bucket(), home());
    // Its own: drills of other tests are on the server of all.
    let server = own_postgres().await;
    let lent = server.database().await;
    let pool = lent.pool().await;
    let stranger = lives_on(&pool, lent.url()).await;
    let env = [("SNAPSHOTS_DRILL", "full"), ("SNAPSHOTS_DRILL_DIR", drills.text()), ("SNAPSHOTS_DRILL_DATABASE_URL", lent.url())];
    let first = site.serve_with(&env).await;
    let run = first.start_run().await;
    wait_until(PATIENCE, "the drill has made a database", async || databases(&pool).await.len() > 1).await;
    first.kill().await;
    assert!(databases(&pool).await.len() > 1 && !promoted(&site));
    wait_until(PATIENCE, "its files are gone", async || drills.left_by_drills().is_empty()).await;

    // Of somebody who keeps other things there: a mirror, another service's data.
    let foreign = drills.path().join("snapshots-mirror");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("manifest.json"), "").unwrap();
    let second = site.serve_with(&env).await;
    let ended = second.ended(&run).await;
    ledger_is_true(&ended);
    assert!(promoted(&site));
    assert_eq!(databases(&pool).await, [STRANGER], "another's drill goes on");
    assert!(foreign.join("manifest.json").is_file(), "a drill takes away what it did not make");
    drop(stranger);
    assert_eq!(drills.left_by_drills(), Vec::<String>::new());
    second.terminate().await;

    let small = drills.path().join("small");
    let Some(disk) = SmallDisk::mount(&small, 64) else {
        println!("skipped: cannot mount a small disk");
        return;
    };
    let env = [env[0], env[2], ("SNAPSHOTS_DRILL_DIR", small.to_str().unwrap())];
    let third = site.serve_with(&env).await;
    let before = latest(&site);
    disk.fill_but(2 << 20);
    let run = third.start_run().await;
    let ended = third.ended(&run).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().unwrap().contains("too little disk for the drill"), "{ended:#}");
    assert_eq!(latest(&site), before);
    assert_eq!(databases(&pool).await, Vec::<String>::new());
    disk.free();
    assert_eq!(third.post(&format!("/runs/{run}/retry")).await.status(), 202);
    assert_eq!(third.ended(&run).await["state"], "succeeded");
    assert_ne!(latest(&site), before);
    third.terminate().await;
}

/// The process of the server that a drill has started for itself.
fn server_of_drill(drills: &Home) -> Option<Pid> {
    let folder = drills.path().join("snapshots-drill-scratch");
    let clusters = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let text = clusters.filter_map(|cluster| std::fs::read_to_string(pid_file(&cluster.path())?).ok()).next()?;
    Some(Pid::from_raw(text.lines().next()?.parse().ok()?))
}

/// `postmaster.pid` somewhere below.
fn pid_file(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find_map(|path| if path.is_dir() { pid_file(&path) } else { path.ends_with("postmaster.pid").then_some(path) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_drill_takes_the_server_that_it_started_and_its_files_along() {
    let (site, drills) = (site_with_chain(1_000).await.with_embedded_bucket(), home());
    let env = [("SNAPSHOTS_DRILL", "full"), ("SNAPSHOTS_DRILL_DIR", drills.text())];
    let first = site.serve_with(&env).await;
    let run = first.start_run().await;
    let mut server = None;
    wait_until(PATIENCE, "the drill's server runs", async || {
        server = server_of_drill(&drills);
        server.is_some()
    })
    .await;
    first.kill().await;
    let server = server.unwrap();
    wait_until(PATIENCE, "its server has ended", async || kill(server, None).is_err()).await;
    wait_until(PATIENCE, "its files are gone", async || drills.left_by_drills().is_empty()).await;
    assert!(!promoted(&site));

    let second = site.serve_with(&env).await;
    let ended = second.ended(&run).await;
    ledger_is_true(&ended);
    assert!(promoted(&site));
    assert_eq!(drills.left_by_drills(), Vec::<String>::new());
    second.terminate().await;
}
