//! One service in several processes, each with roles of its own, on one database and one bucket.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{ServiceProcess, Site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);

/// A process of the site's service with a directory of its own, as on another machine.
async fn serve(site: &Site, name: &str, role: &str) -> ServiceProcess {
    let mut command = site.command();
    command.env_remove("SNAPSHOTS_NO_SCHEDULES").env("SNAPSHOTS_DATA_DIR", site.dir.path().join(name));
    command.args(["serve", "--json", "--listen", "127.0.0.1:0", "--role", role]).stdout(Stdio::piped());
    ServiceProcess::start(command).await
}

/// Roles and queues of every process that is there.
async fn registered(pool: &PgPool) -> Vec<(Vec<String>, Vec<String>)> {
    let sql = "select roles, queues from snapshots.worker order by roles";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

async fn run_of_the_night(pool: &PgPool) -> Option<String> {
    let sql = "select id::text from snapshots.run where schedule = 'nightly-snapshot'";
    sqlx::query_scalar(sql).fetch_optional(pool).await.unwrap()
}

async fn beat(pool: &PgPool, role: &str) -> chrono::DateTime<chrono::Utc> {
    let sql = "select seen_at from snapshots.worker where roles = array[$1]";
    sqlx::query_scalar(sql).bind(role).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_does_its_roles_part_and_together_they_cut_a_snapshot() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let api = serve(&site, "api", "api").await;
    let scheduler = serve(&site, "scheduler", "scheduler").await;
    let deliver = serve(&site, "deliver", "deliver").await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected =
        [(names(&["api"]), names(&[])), (names(&["deliver"]), names(&["deliver"])), (names(&["scheduler"]), names(&[]))];
    assert_eq!(registered(&pool).await, expected);
    assert_eq!(scheduler.get("/runs").await.status(), 404, "only the api role answers");

    sqlx::query("update snapshots.schedule set next_at = now() where name = 'nightly-snapshot'").execute(&pool).await.unwrap();
    wait_until(PATIENCE, "the scheduler fires", async || run_of_the_night(&pool).await.is_some()).await;
    let run = run_of_the_night(&pool).await.unwrap();
    let begun = beat(&pool, "deliver").await;
    wait_until(PATIENCE, "the others have looked around", async || {
        beat(&pool, "deliver").await - begun > chrono::Duration::seconds(3)
    })
    .await;
    assert_eq!(api.json(&format!("/runs/{run}")).await["state"], "queued", "nobody here is a worker");

    let worker = serve(&site, "worker", "worker").await;
    let ended = api.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let mut by: Vec<&str> =
        ended["attempts"].as_array().unwrap().iter().filter_map(|attempt| attempt["worker"].as_str()).collect();
    by.dedup();
    let sql = "select id from snapshots.worker where roles = array['worker']";
    let id: String = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
    assert_eq!(by, [id]);

    for service in [scheduler, deliver, worker, api] {
        assert_eq!(service.terminate().await.code(), Some(0));
    }
    assert!(registered(&pool).await.is_empty(), "who has ended is not on the list");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_is_replaced_by_the_other_while_the_api_goes_on() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let api = serve(&site, "api", "api,scheduler").await;
    let first = serve(&site, "first", "worker").await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let run = api.start_run().await;
    let running = async || api.json(&format!("/runs/{run}")).await["state"] == "running";
    wait_until(PATIENCE, "the first worker has it", running).await;
    let second = serve(&site, "second", "worker").await;
    first.signal(Signal::SIGKILL);
    let lost = async || {
        let shown = api.json(&format!("/runs/{run}")).await;
        let outcomes = |shown: &Value| shown["attempts"].as_array().unwrap().iter().any(|attempt| attempt["outcome"] == "lost");
        outcomes(&shown)
    };
    wait_until(PATIENCE, "the lease has expired", lost).await;
    holder.rollback().await.unwrap();
    assert_eq!(api.ended(&run).await["state"], "succeeded");
    drop(second);
}
