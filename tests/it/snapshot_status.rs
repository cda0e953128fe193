//! `GET /status` and `status.json`: what the original said, and how fresh the newest snapshot is.

use serde_json::{Value, json};
use snapshot::key::Key;

use crate::support::{ServiceProcess, Site, cut, growing_site, repair, site};

async fn state(service: &ServiceProcess) -> Value {
    service.json("/status").await["snapshots"][0].clone()
}

/// A run that fails on the bucket before it looks at the chain.
async fn fail_before_the_gate(site: &Site, service: &ServiceProcess) {
    let pointer = site.objects().join(Key::Latest("mainnet".into()).to_string());
    let good = std::fs::read(&pointer).unwrap();
    std::fs::write(&pointer, "the bucket is ill").unwrap();
    service.cut_refused().await;
    std::fs::write(&pointer, good).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_snapshots_is_the_worst_that_holds() {
    let site = growing_site(300, 299).await.with_embedded_bucket();
    let pool = site.database.pool().await;
    let service = site.serve().await;
    assert_eq!(state(&service).await["state"], "stale", "there is none yet");
    assert_eq!(service.json("/status").await["status"], "degraded");
    let (manifest, _) = cut(&service, &pool, json!({})).await;

    let status = service.json("/status").await;
    for field in [
        "database",
        "queue",
        "indexProgress",
        "integrity",
        "gaps",
        "streams",
        "chainTip",
        "views",
        "activeStreams",
        "totalMissingBlocks",
        "blocksReceivedOutOfOrder",
        "recentDeliveries",
        "timestamp",
    ] {
        assert!(!status[field].is_null(), "{field} is missing: {status:#}");
    }
    assert_eq!((&status["status"], &status["network"]), (&json!("healthy"), &json!("mainnet")));
    assert_eq!(status["queue"], json!({ "pending": 0, "processing": 0, "completed": 0, "failed": 0, "total": 0 }));
    let fresh = &status["snapshots"][0];
    assert_eq!((&fresh["state"], &fresh["snapshot"]["id"]), (&json!("fresh"), &json!(manifest.snapshot_id)), "{fresh:#}");
    assert_eq!((&fresh["snapshot"]["blocksBehind"], &fresh["chain"]["tip"]), (&json!(0), &json!(299)));
    let object = std::fs::read(site.objects().join(Key::Status("mainnet".into()).to_string())).unwrap();
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert_eq!((&object["state"], &object["snapshot"]["id"]), (&json!("fresh"), &json!(manifest.snapshot_id)));

    repair(&pool, "n_tup_upd", &["update public.blocks set canonical = false where height between 100 and 102"]).await;
    let gap = state(&service).await;
    assert_eq!((&gap["state"], &gap["chain"]["missingBlocks"]), (&json!("gap"), &json!(3)));
    assert_eq!(service.json("/status").await["gaps"], json!([{ "gapStart": 100, "gapEnd": 102, "size": 3 }]));
    service.cut_refused().await;
    let refused = state(&service).await;
    assert_eq!(refused["state"], "failed-audit");
    assert!(refused["auditProblem"].as_str().unwrap().contains("100..=102"), "{refused:#}");
    assert_eq!(refused["snapshot"]["id"], json!(manifest.snapshot_id), "`latest` is as it was");
    service.complete("status", &json!({})).await;
    let object = async || service.json("/mainnet/status.json").await;
    assert_eq!(object().await["state"], "failed-audit");

    assert_eq!(service.post_json("/queues/io/pause", &json!({ "reason": "a test" })).await.status(), 200);
    let cancelled = service.start_run().await;
    assert_eq!(state(&service).await["state"], "failed-audit", "a run that has not ended judges nothing");
    assert_eq!(service.post(&format!("/runs/{cancelled}/cancel")).await.status(), 202);
    assert_eq!(service.ended(&cancelled).await["state"], "cancelled");
    assert_eq!(state(&service).await["state"], "failed-audit", "nor does one that was cancelled");
    assert_eq!(service.post("/queues/io/resume").await.status(), 200);
    fail_before_the_gate(&site, &service).await;
    assert_eq!(state(&service).await["state"], "failed-audit", "nor does one that failed before it looked at the chain");
    repair(&pool, "n_tup_upd", &["update public.blocks set canonical = true where height between 100 and 102"]).await;
    cut(&service, &pool, json!({})).await;
    let (object, shown) = (object().await, service.json("/status").await);
    assert_eq!((&object["state"], &object["lastRun"]), (&json!("fresh"), &Value::Null), "written as `latest` moves: {object:#}");
    assert_eq!((&shown["status"], &shown["snapshots"][0]["state"]), (&json!("healthy"), &json!("fresh")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_chain_is_neither_complete_nor_healthy_and_what_went_wrong_inside_is_not_shown_to_strangers() {
    let site = site().await;
    let service = site.serve().await;
    let status = service.json("/status").await;
    assert_eq!((&status["status"], &status["integrity"]), (&json!("degraded"), &json!("empty")), "{status:#}");

    let pool = site.database.pool().await;
    sqlx::raw_sql(
        "insert into public.index_progress (network) values ('mainnet');
         insert into public.views (name, definition, schema_hash, handler_path, last_error) values ('v', '{}', '', '', 'a secret')",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(service.ended(&service.start_run().await).await["state"], "failed");
    let seen = async |host: &str| -> Value {
        let request = reqwest::Client::new().get(format!("{}/status", service.url)).header("host", host);
        request.send().await.unwrap().json().await.unwrap()
    };
    let (inside, outside) = (seen("localhost").await, seen("snapshots.example").await);
    assert_eq!(
        (&inside["views"][0]["lastError"], &inside["snapshots"][0]["lastRun"]["state"]),
        (&json!("a secret"), &json!("failed"))
    );
    assert_eq!((&outside["views"][0]["lastError"], &outside["snapshots"][0]["lastRun"]), (&Value::Null, &Value::Null));
    assert!(outside["views"][0].as_object().unwrap().contains_key("lastError"), "the original's field stays");
}
