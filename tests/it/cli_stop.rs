//! SIGTERM: the service ends in good time, and what it was doing goes on in the next process.

use std::time::Duration;

use serde_json::Value;

use crate::support::{site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_stopping_service_gives_up_goes_on_in_the_next_one() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let first = site.serve().await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let run = first.start_run().await;
    let blocked = "select exists (select from pg_locks where not granted and relation = 'public.events'::regclass
                   and database = (select oid from pg_database where datname = current_database()))";
    wait_until(PATIENCE, "a step waits for events", async || sqlx::query_scalar(blocked).fetch_one(&pool).await.unwrap()).await;
    // The step cannot come to a good place while it waits; a second signal does not let it wait for one.
    first.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = tokio::time::timeout(PATIENCE, first.terminate()).await.expect("the service does not stop");
    assert_eq!(ended.code(), Some(0));
    holder.rollback().await.unwrap();

    let second = site.serve().await;
    let ended = second.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(site.keys().iter().filter(|key| key.ends_with("manifest.json")).count(), 1);
    for attempt in ended["attempts"].as_array().unwrap() {
        assert!(attempt["outcome"] != Value::from("failed"), "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_stops_at_once_and_takes_its_address_away() {
    let site = site_with_chain(200).await;
    let service = site.serve().await;
    let found = site.dir.path().join("service.json");
    assert!(found.exists());
    let ended = tokio::time::timeout(PATIENCE, service.terminate()).await.expect("the service does not stop");
    assert_eq!(ended.code(), Some(0));
    assert!(!found.exists());
}
