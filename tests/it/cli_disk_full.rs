//! The bucket's disk fills up while the service runs.

use std::time::Duration;

use serde_json::Value;

use crate::support::{SmallDisk, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_a_run_up_with_the_reason_and_room_lets_it_go_on() {
    let site = site_with_chain(1_000).await.with_embedded_bucket();
    let path = site.dir.path().join("s3");
    let Some(disk) = SmallDisk::mount(&path, 16) else {
        println!("skipped: cannot mount a small disk");
        return;
    };
    let service = site.serve().await;
    let first = service.cut().await;
    let latest = service.get("/mainnet/latest").await.bytes().await.unwrap();
    let before = site.keys();
    disk.fill();

    let run = service.start_run().await;
    let mut shown = Value::Null;
    wait_until(PATIENCE, "the run is held up", async || {
        shown = service.json(&format!("/runs/{run}")).await;
        assert!(shown["doneAt"].is_null(), "{shown:#}");
        shown["state"] == "retrying"
    })
    .await;
    let errors: Vec<&str> = shown["steps"].as_array().unwrap().iter().filter_map(|step| step["error"].as_str()).collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains("full")), "{errors:?}");
    assert_eq!(service.get("/mainnet/latest").await.bytes().await.unwrap(), latest);
    assert_eq!(site.keys(), before, "something half-written can be seen");
    assert_eq!(service.get("/readyz").await.status(), 200);
    let archive = format!("/mainnet/{}/{}", first.snapshot_id, first.path().archive_name());
    assert_eq!(service.get(&archive).await.bytes().await.unwrap().len() as u64, first.size_bytes);

    disk.free();
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let second = service.json("/mainnet/latest").await;
    assert_eq!(second["snapshot_id"], format!("{}.2", first.snapshot_id));
    service.terminate().await;
}
