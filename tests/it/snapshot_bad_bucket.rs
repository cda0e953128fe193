//! A bucket that answers 500, not at all, or breaks uploads in the middle: as long as it comes to its senses, a snapshot
//! comes out whole; if it does not, the run fails with the reason and `latest` stays what it was.

use std::time::Duration;

use sqlx::PgPool;

use crate::support::{
    Asked, Fault, FaultProxy, ServiceProcess, Site, latest, ledger_is_true, one_whole_snapshot, site_with_chain, wait_until,
    whole,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn is_object(asked: &Asked) -> bool {
    // Bucket and key: two slashes at least.
    asked.path.matches('/').count() >= 2
}

async fn behind(site: &Site, bucket: &FaultProxy) -> ServiceProcess {
    site.serve_with(&[("S3_ENDPOINT", &bucket.url), ("S3_TIMEOUT_SECONDS", "1")]).await
}

/// Cuts a snapshot through a bucket that fails like this, and returns how often it did.
async fn cut_through(decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> usize {
    let site = site_with_chain(1_000).await;
    let bucket = FaultProxy::start(site.bucket.endpoint(), decide).await;
    let service = behind(&site, &bucket).await;
    let run = service.start_run().await;
    ledger_is_true(&service.ended(&run).await);
    one_whole_snapshot(&site);
    bucket.faults().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_answers_500_to_the_first_try_of_everything_gets_a_whole_snapshot() {
    let faults = cut_through(|asked| (is_object(asked) && asked.before == 0).then_some(Fault::Answer(500))).await;
    assert!(faults >= 10, "{faults} requests failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_breaks_each_upload_in_the_middle_once_gets_a_whole_snapshot() {
    let uploads = |asked: &Asked| is_object(asked) && asked.method == "PUT" && asked.before == 0;
    let faults = cut_through(move |asked| uploads(asked).then_some(Fault::CutUpload)).await;
    assert!(faults >= 6, "{faults} uploads broke");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_answer_at_first_gets_a_whole_snapshot() {
    let slow = |asked: &Asked| asked.before == 0 && (asked.path.contains("/chunks/") || asked.path.ends_with("manifest.json"));
    let faults = cut_through(move |asked| slow(asked).then_some(Fault::Silence)).await;
    assert!(faults >= 6, "{faults} requests were not answered");
}

/// Waits between attempts are of no interest here.
async fn hurry(pool: &PgPool) {
    let sql = "update snapshots.step set run_at = now() where state = 'ready' and run_at > now()";
    sqlx::query(sql).execute(pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_stays_dead_fails_the_run_with_the_reason_and_latest_stays() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let bucket = FaultProxy::start(site.bucket.endpoint(), |_| None).await;
    let service = behind(&site, &bucket).await;
    let first = service.cut().await;
    for (fault, reason) in
        [(Fault::Answer(500), "answered HTTP 500"), (Fault::CutUpload, "connection closed"), (Fault::Silence, "timed out")]
    {
        bucket.decide(move |asked| (asked.method == "PUT").then_some(fault));
        let run = service.start_run().await;
        let mut ended = serde_json::Value::Null;
        wait_until(PATIENCE, "the run fails", async || {
            hurry(&pool).await;
            ended = service.json(&format!("/runs/{run}")).await;
            ended["state"] == "failed"
        })
        .await;
        let error = ended["error"].as_str().unwrap();
        assert!(error.contains("bucket unreachable while ") && error.contains(reason), "{error}");
        assert!(!error.contains('{'), "an operator reads this: {error}");
        assert_eq!(latest(&site), first.snapshot_id);
        assert_eq!(site.keys().iter().filter(|key| key.ends_with("manifest.json")).count(), 1);
    }
    bucket.decide(|_| None);
    let next = service.cut().await;
    assert_eq!(latest(&site), next.snapshot_id);
    whole(&site, &next);
    whole(&site, &first);
}
