//! `GET /metrics`: what every process of a service shows, who computes what is in the databases, and for whose eyes it is.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Exposition, ServiceProcess, growing_site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const SOON: [(&str, &str); 1] = [("SNAPSHOTS_FIGURES_SECONDS", "1")];

/// The process that computes each source, and when it did last.
async fn holders(pool: &PgPool) -> Vec<(String, String, Option<chrono::DateTime<chrono::Utc>>)> {
    sqlx::query_as("select source, holder, at from snapshots.figures order by source").fetch_all(pool).await.unwrap()
}

/// The id of a process in the ledger, where it stands a moment after it listens.
async fn worker_of(pool: &PgPool, service: &ServiceProcess) -> String {
    let pid = service.child.id().unwrap().cast_signed();
    let id = async || -> Option<String> {
        let sql = "select id from snapshots.worker where pid = $1";
        sqlx::query_scalar(sql).bind(pid).fetch_optional(pool).await.unwrap()
    };
    wait_until(PATIENCE, "the process is registered", async || id().await.is_some()).await;
    id().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_shows_well_formed_metrics_of_jobs_snapshots_the_chain_and_requests() {
    let site = growing_site(1_100, 1_099).await;
    let service = site.serve_with(&SOON).await;
    service.cut().await;
    service.complete("scrub", &json!({ "percent": 100 })).await;
    assert_eq!(service.get("/no/such/route/here").await.status(), 404);
    let mut shown = Exposition::default();
    let mainnet = [("network", "mainnet")];
    wait_until(PATIENCE, "the figures follow", async || {
        shown = Exposition::of(&service).await;
        let verified = shown.value("snapshots_snapshot_last_verified_timestamp_seconds", &mainnet);
        verified.is_some_and(|at| at > 0.0)
    })
    .await;

    let is = |name: &str, labels: &[(&str, &str)]| shown.value(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"));
    let snapshot = ("kind", "snapshot");
    assert!(is("snapshots_job_attempts_total", &[snapshot, ("outcome", "ok")]) >= 7.0);
    assert_eq!(is("snapshots_job_attempts_total", &[snapshot, ("outcome", "dead")]), 0.0, "known before it happens");
    assert_eq!(is("snapshots_job_attempt_duration_seconds_count", &[snapshot, ("step", "promote")]), 1.0);
    assert_eq!(is("snapshots_jobs", &[snapshot, ("state", "running")]), 0.0);
    assert_eq!(is("snapshots_jobs_dead", &[snapshot]), 0.0);
    assert_eq!(is("snapshots_workers", &[("queue", "cpu"), ("state", "alive")]), 1.0);
    assert_eq!(is("snapshots_queue_oldest_ready_age_seconds", &[("queue", "io")]), 0.0);
    assert_eq!(is("snapshots_indexed_height", &mainnet), 1_099.0);
    let archive = is("snapshots_snapshot_size_bytes", &mainnet);
    assert!(archive > 1_000.0);
    for phase in ["verified", "uploaded"] {
        assert_eq!(is("snapshots_snapshot_bytes_total", &[("phase", phase)]), archive, "{phase}");
    }
    assert!(
        is("snapshots_snapshot_bytes_total", &[("phase", "read")]) > is("snapshots_snapshot_bytes_total", &[("phase", "stored")])
    );
    assert!(is("snapshots_worker_last_heartbeat_timestamp_seconds", &[("role", "worker")]) > 1.7e9);
    assert!(is("snapshots_snapshot_last_success_timestamp_seconds", &mainnet) > 1.7e9);
    assert_eq!(is("http_requests_total", &[("route", "/workflows/{name}/runs"), ("method", "POST"), ("status", "202")]), 2.0);
    assert_eq!(is("http_requests_total", &[("route", "none"), ("status", "404")]), 1.0);
    assert_eq!(is("snapshots_db_pool_connections", &[("pool", "control"), ("state", "max")]), 16.0);
    assert_eq!(is("snapshots_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    crate::service_alerts::speak_of(&shown);
    // An id in a label would make a series a run.
    let closed = shown.values_of("route").into_iter().chain(shown.values_of("kind")).chain(shown.values_of("step"));
    assert!(
        closed.clone().count() > 10 && closed.clone().all(|value| !value.contains(char::is_numeric)),
        "{:?}",
        closed.collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_computes_the_figures_of_the_database_and_another_takes_over_when_it_dies() {
    let site = site_with_chain(60).await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    let first = site.serve_with(&SOON).await;
    let chosen = worker_of(&pool, &first).await;
    wait_until(PATIENCE, "the first process computes", async || {
        let holders = holders(&pool).await;
        holders.len() == 2 && holders.iter().all(|(_, holder, at)| *holder == chosen && at.is_some())
    })
    .await;
    let second = site.serve_beside(&[SOON[0], ("SNAPSHOTS_ROLE", "worker")]).await;
    let other = worker_of(&pool, &second).await;
    wait_until(PATIENCE, "a process without the API shows what the other computed", async || {
        let shown = Exposition::of(&second).await;
        shown.value("snapshots_indexed_height", &[("network", "mainnet")]) == Some(59.0)
            && shown.value("snapshots_workers", &[("queue", "cpu"), ("state", "alive")]) == Some(2.0)
    })
    .await;
    // Twice more, while both look every second.
    for _ in 0..2 {
        let before = holders(&pool).await;
        wait_until(PATIENCE, "the figures are computed again", async || {
            holders(&pool).await.iter().zip(&before).all(|(now, before)| now.2 > before.2)
        })
        .await;
        assert!(holders(&pool).await.iter().all(|(_, holder, _)| *holder == chosen), "two processes compute the same");
    }

    first.kill().await;
    wait_until(PATIENCE, "the other process computes and says who is gone", async || {
        let shown = Exposition::of(&second).await;
        holders(&pool).await.iter().all(|(_, holder, _)| *holder == other)
            && shown.value("snapshots_workers", &[("queue", "cpu"), ("state", "gone")]) == Some(1.0)
    })
    .await;
    assert!(second.terminate().await.success());
    let third = site.serve_with(&SOON).await;
    let next = worker_of(&pool, &third).await;
    wait_until(PATIENCE, "one that comes after a proper end computes", async || {
        holders(&pool).await.iter().all(|(_, holder, _)| *holder == next)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_retries_and_what_cannot_be_asked_are_seen() {
    let site = site_with_chain(60).await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    sqlx::raw_sql("delete from public.events; delete from public.transactions; delete from public.blocks where height = 30")
        .execute(&pool)
        .await
        .unwrap();
    let service = site.serve_with(&SOON).await;
    service.cut_refused().await;
    let mainnet = [("network", "mainnet")];
    wait_until(PATIENCE, "the figures say what failed", async || {
        let shown = Exposition::of(&service).await;
        shown.value("snapshots_jobs_dead", &[("kind", "snapshot")]) == Some(1.0)
            && shown.value("snapshots_snapshot_audit_failed", &mainnet) == Some(1.0)
    })
    .await;
    let shown = Exposition::of(&service).await;
    assert_eq!(shown.value("snapshots_job_attempts_total", &[("kind", "snapshot"), ("outcome", "dead")]), Some(1.0));
    assert_eq!(
        shown.value("snapshots_snapshot_last_success_timestamp_seconds", &mainnet),
        Some(0.0),
        "stale from the first day on"
    );

    // The indexed database loses a table: its figures stay as they were, and the ledger's go on.
    let last =
        |shown: &Exposition, source| shown.value("snapshots_figures_last_success_timestamp_seconds", &[("source", source)]);
    sqlx::query("alter table public.index_progress rename to elsewhere").execute(&pool).await.unwrap();
    let before = Exposition::of(&service).await;
    wait_until(PATIENCE, "the ledger's figures go on", async || {
        let shown = Exposition::of(&service).await;
        last(&shown, "engine") > last(&before, "engine").map(|at| at + 2.0)
    })
    .await;
    let after = Exposition::of(&service).await;
    assert!(last(&after, "snapshots") < last(&after, "engine"), "its age tells that it is old");
    assert_eq!(after.value("snapshots_indexed_height", &mainnet), Some(59.0));
    sqlx::query("alter table public.elsewhere rename to index_progress").execute(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_programs_of_this_machine_or_those_with_a_key() {
    let site = site_with_chain(60).await.with_flags(&["--confirmations", "0"]);
    let service = site.serve().await;
    let proxied = reqwest::Client::new().get(format!("{}/metrics", service.url)).header("x-forwarded-for", "203.0.113.9");
    let answer = proxied.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "AUTHENTICATION_ERROR");
    assert_eq!(service.get("/api/metrics").await.status(), 200);
}
