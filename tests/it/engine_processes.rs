//! What processes do to each other: one that was stopped past its lease wakes up, one drains for longer than a lease, all
//! connections are cut again and again, a run is cancelled while the database keeps its step waiting. Real processes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{
    Asked, Fault, FaultProxy, Hold, attempts_of, latest, ledger_is_true, one_whole_snapshot, site_with_chain, wait_until, whole,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn reads_a_chunk(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/chunks/")
}

fn moves_latest(asked: &Asked) -> bool {
    asked.method == "PUT" && asked.path.ends_with("/mainnet/latest.json")
}

/// The run's JSON without what changes by itself.
async fn history(pool: &PgPool) -> String {
    let sql = "select concat((select jsonb_agg(to_jsonb(s) order by id) from snapshots.step s),
                   (select jsonb_agg(to_jsonb(a) order by lease_token) from snapshots.attempt a),
                   (select jsonb_agg(to_jsonb(e) order by id) from snapshots.event e),
                   (select jsonb_agg(to_jsonb(r) order by id) from snapshots.run r))";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

async fn leased_until(pool: &PgPool, step: &str) -> Option<DateTime<Utc>> {
    let sql = "select lease_until from snapshots.step where name = $1 and state = 'running'";
    sqlx::query_scalar(sql).bind(step).fetch_optional(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_past_its_lease_wakes_up_and_changes_nothing() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let bucket = FaultProxy::start(site.bucket.endpoint(), |asked| moves_latest(asked).then_some(Fault::Hold)).await;
    let first = site.serve_with(&[("S3_ENDPOINT", &bucket.url)]).await;
    let run = first.start_run().await;
    wait_until(PATIENCE, "latest is being moved", async || !bucket.faults().is_empty()).await;
    first.signal(Signal::SIGSTOP);

    let second = site.serve_beside(&[]).await;
    let ended = second.ended(&run).await;
    ledger_is_true(&ended);
    assert_eq!(attempts_of(&ended, "promote"), [("lost", 1), ("succeeded", 2)]);
    let first_snapshot = one_whole_snapshot(&site);
    let newer = second.cut().await;
    assert_eq!((newer.sequence, latest(&site)), (first_snapshot.sequence + 1, newer.snapshot_id.clone()));
    second.terminate().await;
    let before = history(&pool).await;

    // What the sleeper had sent arrives now, and it goes on with the next thing it had in mind.
    bucket.release();
    first.signal(Signal::SIGCONT);
    let woken_at = Utc::now();
    let sweeps = "select exists (select from snapshots.worker where seen_at > $1)";
    wait_until(PATIENCE, "it is awake", async || sqlx::query_scalar(sweeps).bind(woken_at).fetch_one(&pool).await.unwrap()).await;
    assert_eq!(first.terminate().await.code(), Some(0));
    assert_eq!(history(&pool).await, before);
    assert_eq!(latest(&site), newer.snapshot_id, "latest went backwards");
    whole(&site, &newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_drains_for_longer_than_a_lease_is_not_taken_away() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let bucket = FaultProxy::start(site.bucket.endpoint(), |asked| reads_a_chunk(asked).then_some(Fault::Hold)).await;
    let first = site.serve_with(&[("S3_ENDPOINT", &bucket.url)]).await;
    let run = first.start_run().await;
    wait_until(PATIENCE, "checksum reads", async || !bucket.faults().is_empty()).await;
    let second = site.serve_beside(&[]).await;
    first.signal(Signal::SIGTERM);
    let lease = leased_until(&pool, "checksum").await.unwrap();
    wait_until(PATIENCE, "the lease it had when it was told to stop is over", async || Utc::now() > lease).await;
    assert!(leased_until(&pool, "checksum").await.unwrap() > lease);
    bucket.release();
    assert_eq!(first.stopped().await.code(), Some(0));

    let ended = second.ended(&run).await;
    ledger_is_true(&ended);
    assert_eq!(attempts_of(&ended, "checksum"), [("yielded", 1), ("succeeded", 1)]);
    one_whole_snapshot(&site);
}

/// Cuts every connection of services to the database.
async fn cut_connections(pool: &PgPool) {
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name in ('snapshots', 'pg_dump')";
    sqlx::query(sql).execute(pool).await.unwrap();
}

fn outcomes(run: &Value) -> Vec<&str> {
    run["attempts"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect()
}

async fn has_ended(pool: &PgPool) -> bool {
    sqlx::query_scalar("select exists (select from snapshots.run where done_at is not null)").fetch_one(pool).await.unwrap()
}

async fn steps_begun(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(distinct step_id) from snapshots.attempt").fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_connections_are_cut_in_every_step_ends_whole_and_no_attempt_is_lost() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let (service, _other) = (site.serve().await, site.serve_beside(&[]).await);
    let run = service.start_run().await;
    let mut begun = 0;
    while !has_ended(&pool).await {
        // Waits between attempts are of no interest here.
        let hurry = "update snapshots.step set run_at = now() where state = 'ready' and run_at > now()";
        wait_until(PATIENCE, "another step has begun, or all have ended", async || {
            sqlx::query(hurry).execute(&pool).await.unwrap();
            steps_begun(&pool).await > begun || has_ended(&pool).await
        })
        .await;
        begun = steps_begun(&pool).await;
        cut_connections(&pool).await;
    }
    let ended = service.ended(&run).await;
    ledger_is_true(&ended);
    assert!(!outcomes(&ended).contains(&"lost"), "{ended:#}");
    one_whole_snapshot(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_while_the_database_still_keeps_its_step_waiting() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    // The plan reads events too, so they are locked once it is made.
    let hold = Hold::on_success(&pool, "plan").await;
    let run = service.start_run().await;
    hold.reached().await;
    let mut locked = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *locked).await.unwrap();
    hold.release().await;
    let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock'
                 and query like 'copy (select%\"events\"%' and datname = current_database())";
    wait_until(PATIENCE, "cutting waits", async || sqlx::query_scalar(waits).fetch_one(&pool).await.unwrap()).await;

    assert_eq!(service.post(&format!("/runs/{run}/cancel")).await.status(), 202);
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    let outcomes = outcomes(&ended);
    assert!(outcomes.contains(&"cancelled") && !outcomes.contains(&"lost"), "{outcomes:?}");
    locked.rollback().await.unwrap();
    service.cut().await;
    one_whole_snapshot(&site);
}
