//! The bucket goes away while the service runs.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Proxy, ServiceProcess, run, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_gone_holds_a_run_up_with_the_reason_until_it_is_back() {
    let site = site_with_chain(1_000).await;
    let bucket = Proxy::start(site.bucket.endpoint(), u64::MAX).await;
    let mut command = site.command();
    command
        .args(["serve", "--json", "--listen", "127.0.0.1:0"])
        .env("S3_ENDPOINT", &bucket.url)
        .stdout(std::process::Stdio::piped());
    let service = ServiceProcess::start(command).await;
    bucket.cut(0);
    let run_id = service.start_run().await;
    let mut shown = Value::Null;
    wait_until(PATIENCE, "the run is held up", async || {
        shown = service.json(&format!("/runs/{run_id}")).await;
        assert!(shown["doneAt"].is_null(), "{shown:#}");
        shown["state"] == "retrying"
    })
    .await;
    let errors: Vec<&str> = shown["steps"].as_array().unwrap().iter().filter_map(|step| step["error"].as_str()).collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains("bucket unreachable")), "{errors:?}");
    assert_eq!((service.get("/livez").await.status().as_u16(), service.get("/readyz").await.status().as_u16()), (200, 503));
    let listed = run(site.command().args(["show", "--json", "--url", &service.url])).await;
    listed.error_with(9, &["bucket", "try again"]);
    assert!(site.keys().is_empty());

    bucket.cut(u64::MAX);
    let ended = service.ended(&run_id).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(service.get("/readyz").await.status().as_u16(), 200);
}
