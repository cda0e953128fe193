//! Postgres ends at once, as in a crash, while a step is claimed, renewed or completed, and stays away for longer than a
//! lease. Real processes. An outage is nobody's fault: when it is over the run goes on, and no attempt was lost.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::support::{
    Asked, Fault, FaultProxy, Hold, attempts_of, ledger_is_true, one_whole_snapshot, own_postgres, site_with_chain_on, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// When the last lease runs out.
async fn last_lease(pool: &PgPool) -> Option<DateTime<Utc>> {
    sqlx::query_scalar("select max(lease_until) from snapshots.step where state = 'running'").fetch_one(pool).await.unwrap()
}

fn reads_a_chunk(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/chunks/")
}

/// Ends Postgres while an update of the step `checksum` that meets `condition` is under way. The step needs the database
/// for its records alone, so what it does cannot fail. With `busy` it goes on working until the outage is over.
async fn postgres_ends_while(condition: &str, busy: bool) {
    let mut server = own_postgres().await;
    let site = site_with_chain_on(server.database().await, 1_000).await;
    let pool = site.database.pool().await;
    let decide = move |asked: &Asked| (busy && reads_a_chunk(asked)).then_some(Fault::Hold);
    let bucket = FaultProxy::start(site.bucket.endpoint(), decide).await;
    let one = site.serve_with(&[("S3_ENDPOINT", &bucket.url)]).await;
    // A second process whose sweep could take the first one's step for lost.
    let _two = site.serve_beside(&[("S3_ENDPOINT", &bucket.url)]).await;
    let hold = Hold::on(&pool, &format!("new.name = 'checksum' and {condition}")).await;
    let run = one.start_run().await;
    hold.reached().await;
    let lease = last_lease(&pool).await;

    server.crash().await;
    wait_until(PATIENCE, "every lease has run out", async || lease.is_none_or(|until| until < Utc::now())).await;
    server.restart().await;
    if busy {
        wait_until(PATIENCE, "the lease is renewed", async || last_lease(&pool).await.is_some_and(|until| until > Utc::now()))
            .await;
    }
    bucket.release();

    let ended = one.ended(&run).await;
    ledger_is_true(&ended);
    assert_eq!(attempts_of(&ended, "checksum"), [("succeeded", 1)]);
    one_whole_snapshot(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_ends_while_a_step_is_claimed_costs_no_attempt() {
    postgres_ends_while("old.state = 'ready' and new.state = 'running'", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_ends_while_a_lease_is_renewed_costs_no_attempt() {
    postgres_ends_while("old.state = 'running' and new.state = 'running' and new.lease_until > old.lease_until", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_ends_while_a_step_is_completed_costs_no_attempt() {
    postgres_ends_while("new.state = 'succeeded'", false).await;
}
