//! SIGTERM: the service ends in good time, and what it was doing goes on in the next process.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};

use crate::support::{Hold, ServiceProcess, Site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a query like this one waits for a lock in this database.
async fn waits(pool: &PgPool, query: &str) -> bool {
    let sql = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like $1 and datname = current_database())";
    sqlx::query_scalar(sql).bind(query).fetch_one(pool).await.unwrap()
}

/// Starts a run and locks transactions once the plan is made, so that cutting waits between two tables.
async fn cutting_waits(site: &Site, service: &ServiceProcess, pool: &PgPool) -> (String, Transaction<'static, Postgres>) {
    let hold = Hold::on_success(pool, "plan").await;
    let run = service.start_run().await;
    hold.reached().await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.transactions in access exclusive mode").execute(&mut *holder).await.unwrap();
    hold.release().await;
    wait_until(PATIENCE, "cutting waits for transactions", async || waits(pool, "copy (select%\"transactions\"%").await).await;
    assert!(!site.keys().is_empty(), "blocks are cut first");
    (run, holder)
}

/// Outcomes of the attempts at cutting.
fn outcomes(ended: &Value) -> Vec<(&str, i64)> {
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let steps = ended["steps"].as_array().unwrap();
    let cutting = steps.iter().find(|step| step["name"] == "dump" && step["kind"] == "child").unwrap();
    let attempts = ended["attempts"].as_array().unwrap().iter().filter(|attempt| attempt["stepId"] == cutting["id"]);
    attempts.map(|attempt| (attempt["outcome"].as_str().unwrap(), attempt["no"].as_i64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_service_hands_its_run_over_at_a_good_place_and_that_costs_no_attempt() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let first = site.serve().await;
    let (run, holder) = cutting_waits(&site, &first, &pool).await;
    first.signal(Signal::SIGTERM);
    let draining = "select exists (select from snapshots.worker where draining)";
    wait_until(PATIENCE, "the worker drains", async || sqlx::query_scalar(draining).fetch_one(&pool).await.unwrap()).await;
    holder.rollback().await.unwrap();
    assert_eq!(first.stopped().await.code(), Some(0));

    let second = site.serve().await;
    assert_eq!(outcomes(&second.ended(&run).await), [("yielded", 1), ("succeeded", 1)]);
    assert_eq!(site.keys().iter().filter(|key| key.ends_with("manifest.json")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_service_that_cannot_come_to_a_good_place() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let first = site.serve().await;
    let (run, holder) = cutting_waits(&site, &first, &pool).await;
    first.signal(Signal::SIGTERM);
    let draining = "select exists (select from snapshots.worker where draining)";
    wait_until(PATIENCE, "the worker drains", async || sqlx::query_scalar(draining).fetch_one(&pool).await.unwrap()).await;
    assert_eq!(first.terminate().await.code(), Some(0));
    holder.rollback().await.unwrap();

    let second = site.serve().await;
    let ended = second.ended(&run).await;
    assert_eq!(outcomes(&ended).last(), Some(&("succeeded", 2)), "{ended:#}");
    assert_eq!(site.keys().iter().filter(|key| key.ends_with("manifest.json")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_stops_at_once_and_takes_its_address_away() {
    let site = site_with_chain(200).await;
    let service = site.serve().await;
    let found = site.dir.path().join("service.json");
    assert!(found.exists());
    let ended = service.terminate().await;
    assert_eq!(ended.code(), Some(0));
    assert!(!found.exists());
}
