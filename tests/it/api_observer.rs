//! The ingest role takes a node's posts over HTTP: 200 means stored, everything else means send it again.

use std::path::{Path, PathBuf};

use chain::recording::Recording;
use chain::synthetic::{self, Expected, Profile, Spec};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{ServiceProcess, Site, run, shared_data, site};

/// A recording with forks and redeliveries, and what an indexer ends with.
fn recording(dir: &Path, blocks: u64) -> (PathBuf, Expected) {
    let spec = Spec { blocks, seed: 3, profile: Profile::Nakamoto, network: "mainnet".into() };
    let file = dir.join("posts.ndjson.gz");
    let expected = synthetic::write_recording(&spec, &file).unwrap();
    (file, expected)
}

async fn counts(pool: &PgPool) -> (u64, u64, u64) {
    let sql = "select (select count(*) from public.blocks where canonical), (select count(*) from public.transactions),
               (select count(*) from public.events)";
    let (blocks, transactions, events): (i64, i64, i64) = sqlx::query_as(sql).fetch_one(pool).await.unwrap();
    (blocks.unsigned_abs(), transactions.unsigned_abs(), events.unsigned_abs())
}

async fn post(service: &ServiceProcess, path: &str, body: String) -> (u16, Value) {
    let answer = reqwest::Client::new().post(format!("{}{path}", service.url)).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn post_all(service: &ServiceProcess, file: &Path) {
    for line in Recording::open(file).unwrap() {
        let line = line.unwrap();
        let (status, answer) = post(service, &line.path, line.payload.text().to_owned()).await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{} {answer}", line.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_of_a_node_with_forks_end_as_the_canonical_chain_and_again_change_nothing() {
    let site = site().await;
    let service = site.serve().await;
    let (file, expected) = recording(site.dir.path(), 150);
    assert!(expected.counts.orphaned_blocks > 0 && expected.counts.redelivered_blocks > 0, "too easy a recording");
    let counted = &expected.counts;
    let canonical = (counted.canonical_blocks, counted.canonical_transactions, counted.canonical_events);
    let pool = site.database.pool().await;
    for _ in 0..2 {
        post_all(&service, &file).await;
        assert_eq!(counts(&pool).await, canonical);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_recorded_from_a_real_node_are_all_taken() {
    let Some(data) = shared_data() else { return };
    let site = site().await.with_flags(&["--network", "mocknet"]);
    let service = site.serve().await;
    post_all(&service, &data.join("recordings/regtest-epoch3-transition.ndjson.gz")).await;
    let all: Value = serde_json::from_slice(&std::fs::read(data.join("counts.json")).unwrap()).unwrap();
    let expected = &all["recordings/regtest-epoch3-transition.ndjson.gz"]["counts"];
    let number = |name: &str| expected[name].as_u64().unwrap();
    let canonical = (number("canonical_blocks"), number("canonical_transactions"), number("canonical_events"));
    assert_eq!(counts(&site.database.pool().await).await, canonical);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_block_is_refused_and_stores_nothing() {
    let site = site().await;
    let service = site.serve().await;
    for body in ["", "{", "null", "[]", "{}", r#"{"block_height":1}"#, r#"{"block_height":-1,"index_block_hash":"0x12"}"#] {
        let (status, problem) = post(&service, "/new_block", body.to_owned()).await;
        assert_eq!((status, &problem["code"]), (400, &json!("VALIDATION_ERROR")), "{body:?}: {problem}");
    }
    let (status, _) = post(&service, "/new_mempool_tx", "[\"0x00\"]".into()).await;
    assert_eq!(status, 200, "what the chain does not need is taken and dropped");
    assert_eq!(counts(&site.database.pool().await).await, (0, 0, 0));
}

/// `snapshots ingest` on the site's database.
async fn ingest(site: &Site, files: &[&str]) -> crate::support::Ran {
    run(site.command().args(["ingest", "--json"]).args(files)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_replayed_from_files_as_the_posts_would_have_been() {
    let site = site().await;
    let (file, expected) = recording(site.dir.path(), 150);
    let file = file.to_str().unwrap();
    let result = ingest(&site, &[file]).await.result();
    assert_eq!(result["posts"], expected.counts.lines);
    let counted = expected.counts;
    let canonical = (counted.canonical_blocks, counted.canonical_transactions, counted.canonical_events);
    let pool = site.database.pool().await;
    assert_eq!(counts(&pool).await, canonical);
    ingest(&site, &[file, file]).await.result();
    assert_eq!(counts(&pool).await, canonical);
    let broken = site.dir.path().join("broken.ndjson");
    std::fs::write(&broken, "{\"path\":\"/new_block\"}\n").unwrap();
    let error = ingest(&site, &[broken.to_str().unwrap()]).await.error(1);
    assert!(error["message"].as_str().unwrap().contains("broken.ndjson line 1"), "{error}");
    ingest(&site, &["/nowhere/a.ndjson"]).await.error_with(4, &["/nowhere/a.ndjson"]);
    assert_eq!(counts(&pool).await, canonical);
    let without = run(crate::support::bare_command(&["ingest", "--json"]).arg(file)).await;
    without.error_with(2, &["DATABASE_URL"]);
}
