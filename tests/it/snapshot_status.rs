//! `GET /status` and `status.json`: what the original said, and how fresh the newest snapshot is.

use serde_json::{Value, json};
use snapshot::key::Key;

use crate::support::{ServiceProcess, cut, growing_site, repair};

async fn state(service: &ServiceProcess) -> Value {
    service.json("/status").await["snapshots"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_snapshots_is_the_worst_that_holds() {
    let site = growing_site(300, 299).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    assert_eq!(state(&service).await["state"], "stale", "there is none yet");
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
    let object = std::fs::read(site.objects().join(Key::Status("mainnet".into()).to_string())).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&object).unwrap()["state"], "failed-audit");
}
