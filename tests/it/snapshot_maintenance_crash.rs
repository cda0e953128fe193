//! kill -9 in each step of what looks after published snapshots, after the step's effects and before the ledger knows. The next
//! process runs the step again, and the outcome is that of one run.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use snapshot::manifest::Manifest;
use sqlx::PgPool;

use crate::support::{Hold, ServiceProcess, Site, cut, equals_source, grow, growing_site};

/// Runs a workflow, kills the process in one of its steps, and returns the run and the service that ended it.
async fn killed_in(
    site: &Site,
    pool: &PgPool,
    service: ServiceProcess,
    (workflow, params, step): (&str, &Value, &str),
) -> (Value, ServiceProcess) {
    let hold = Hold::on_success(pool, step).await;
    let run = service.begin(workflow, params).await;
    hold.reached().await;
    service.kill().await;
    hold.abandon().await;
    let service = site.serve().await;
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    (ended, service)
}

async fn two_snapshots(site: &Site, pool: &PgPool, service: &ServiceProcess) -> (Manifest, Manifest) {
    let (first, _) = cut(service, pool, json!({})).await;
    grow(pool, 299).await;
    let (second, _) = cut(service, pool, json!({})).await;
    assert_eq!(site.keys().iter().filter(|key| key.ends_with("manifest.json")).count(), 2);
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_run_that_is_killed_takes_over_the_same_ranges() {
    let site = growing_site(5_300, 5_199).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 5_299).await;
    let (_, service) = killed_in(&site, &pool, service, ("snapshot", &json!({}), "compress")).await;
    let bytes = service.get("/snapshots/latest").await.bytes().await.unwrap();
    let second = Manifest::from_bytes(&bytes).unwrap();
    let sealed = |manifest: &Manifest| {
        let sealed = manifest.chunks.iter().filter(|chunk| chunk.sealed);
        sealed.map(|chunk| (chunk.file_name(), chunk.sha256.clone())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(sealed(&first), sealed(&second));
    assert_eq!(second.block_height, 5_299);
    equals_source(&pool, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scrubbing_and_resealing_that_are_killed_find_and_gain_the_same() {
    let site = growing_site(5_000, 4_999).await;
    let pool = site.database.pool().await;
    // A chain that begins shortly before a boundary has a short range that is sealed.
    for (table, height) in [("events", "block_height"), ("transactions", "block_height"), ("blocks", "height")] {
        let sql = format!("delete from public.{table} where {height} < 4900");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    }
    let service = site.serve().await;
    cut(&service, &pool, json!({})).await;
    sqlx::query("update public.events set type = type || '!' where block_height = 4950").execute(&pool).await.unwrap();
    let all = json!({ "percent": 100 });
    let (scrubbed, service) = killed_in(&site, &pool, service, ("scrub", &all, "rehash")).await;
    assert_eq!(scrubbed["result"]["findings"].as_array().unwrap().len(), 1, "{:#}", scrubbed["result"]);
    let marks: i64 = sqlx::query_scalar("select count(*) from snapshots.dirty_range").fetch_one(&pool).await.unwrap();
    assert_eq!(marks, 1);
    let mut service = service;
    for step in ["choose", "report"] {
        let (again, next) = killed_in(&site, &pool, service, ("scrub", &all, step)).await;
        assert_eq!(again["result"]["findings"], scrubbed["result"]["findings"], "killed in {step}");
        service = next;
    }
    let marks: i64 = sqlx::query_scalar("select count(*) from snapshots.dirty_range").fetch_one(&pool).await.unwrap();
    assert_eq!(marks, 1, "marked once");
    let (_, _service) = killed_in(&site, &pool, service, ("reseal", &json!({}), "recompress")).await;
    let rows: i64 = sqlx::query_scalar("select count(*) from snapshots.resealed").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_and_pruning_that_are_killed_are_done_once() {
    let flags = ["--keep-daily", "1", "--keep-weekly", "1", "--keep-monthly", "1", "--prune-grace-hours", "0"];
    let site = growing_site(300, 249).await.with_flags(&flags);
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, second) = two_snapshots(&site, &pool, &service).await;
    let decision = json!({ "id": second.snapshot_id, "reason": "bad", "actor": "me" });
    let (_, service) = killed_in(&site, &pool, service, ("retract", &decision, "withdraw")).await;
    assert_eq!(service.json("/mainnet/latest").await["snapshot_id"], json!(first.snapshot_id));
    let (_, service) = killed_in(&site, &pool, service, ("publish", &decision, "point")).await;
    assert_eq!(service.json("/mainnet/latest").await["snapshot_id"], json!(second.snapshot_id));
    let lines: Vec<String> = sqlx::query_scalar("select act from snapshots.audit_log where act like 'snapshot.%' order by id")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(lines, ["snapshot.retract", "snapshot.publish"], "one line each");
    let (_, service) = killed_in(&site, &pool, service, ("retract", &decision, "repoint")).await;
    assert_eq!(service.json("/mainnet/latest").await["snapshot_id"], json!(first.snapshot_id));
    let (_, service) = killed_in(&site, &pool, service, ("publish", &decision, "check")).await;
    assert_eq!(service.json("/mainnet/latest").await["snapshot_id"], json!(second.snapshot_id));

    let (pruned, service) = killed_in(&site, &pool, service, ("prune", &json!({}), "sweep")).await;
    assert_eq!(pruned["result"]["expired"], json!([first.snapshot_id]), "{:#}", pruned["result"]);
    assert_eq!(service.get(&format!("/snapshots/{}", first.snapshot_id)).await.status(), 404);
    assert!(!site.keys().iter().any(|key| key.starts_with(&format!("mainnet/{}/", first.snapshot_id))));
    let mut service = service;
    for (workflow, step) in [("prune", "mark"), ("prune", "report"), ("status", "write")] {
        (_, service) = killed_in(&site, &pool, service, (workflow, &json!({}), step)).await;
    }
    assert_eq!(service.get(&format!("/snapshots/{}", second.snapshot_id)).await.status(), 200);
    let status: Value = serde_json::from_slice(&std::fs::read(site.objects().join("mainnet/status.json")).unwrap()).unwrap();
    assert_eq!((&status["state"], &status["snapshot"]["id"]), (&json!("fresh"), &json!(second.snapshot_id)));
}
