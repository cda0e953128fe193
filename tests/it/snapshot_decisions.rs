//! What people decide about snapshots: taking back, publishing again; and that `latest` never goes where something is missing.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointers};
use sqlx::PgPool;

use crate::support::{Hold, Ran, ServiceProcess, Site, cut, equals_source, grow, growing_site, run};

async fn command(site: &Site, service: &ServiceProcess, args: &[&str]) -> Ran {
    let mut command = site.command();
    command.env("SNAPSHOTS_URL", &service.url).args(args).arg("--json");
    run(&mut command).await
}

/// Id of the snapshot that every pointer names.
async fn latest(site: &Site, service: &ServiceProcess) -> Option<String> {
    let answer = service.get("/mainnet/latest").await;
    let named = (answer.status() == 200).then_some(answer);
    let named = match named {
        Some(answer) => answer.json::<Value>().await.unwrap()["snapshot_id"].as_str().map(str::to_owned),
        None => None,
    };
    let root: Pointers =
        serde_json::from_slice(&std::fs::read(site.objects().join(Key::LatestOfAll.to_string())).unwrap()).unwrap();
    assert_eq!(root.networks.get("mainnet").map(|pointer| pointer.snapshot_id.clone()), named);
    named
}

/// The snapshot that the bucket's `status.json` names.
fn in_status(site: &Site) -> String {
    let object = std::fs::read(site.objects().join(Key::Status("mainnet".into()).to_string())).unwrap();
    let status: Value = serde_json::from_slice(&object).unwrap();
    status["snapshot"]["id"].as_str().unwrap_or_default().to_owned()
}

/// A site whose service has published a snapshot, and another when the chain had grown.
async fn two_snapshots() -> (Site, PgPool, ServiceProcess, Manifest, Manifest) {
    let site = growing_site(300, 249).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 299).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    (site, pool, service, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_back_and_published_again_with_a_reason() {
    let (site, pool, service, first, second) = two_snapshots().await;
    let (one, two) = (first.snapshot_id.as_str(), second.snapshot_id.as_str());
    let notice = site.objects().join(Key::Retracted(second.path()).to_string());

    command(&site, &service, &["retract", "1999-01-01", "--reason", "x"]).await.error_with(4, &["1999-01-01"]);
    command(&site, &service, &["retract", two, "--reason", " "]).await.error(2);
    command(&site, &service, &["retract", two, "--reason", "wrong rows at 280"]).await.result();
    assert_eq!(latest(&site, &service).await.as_deref(), Some(one));
    let answer = service.get(&format!("/snapshots/{two}")).await;
    assert_eq!(answer.status(), 410);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("wrong rows at 280"), "{problem}");
    assert_eq!(service.json("/snapshots").await["data"].as_array().unwrap().len(), 1);
    let said: Value = serde_json::from_slice(&std::fs::read(&notice).unwrap()).unwrap();
    assert_eq!((&said["id"], &said["reason"]), (&json!(two), &json!("wrong rows at 280")));
    assert_eq!(in_status(&site), *one, "status.json names what readers are sent to");

    command(&site, &service, &["publish", two, "--reason", "it was right"]).await.result();
    assert_eq!(latest(&site, &service).await.as_deref(), Some(two));
    assert!(!notice.exists());
    assert_eq!(in_status(&site), *two);
    command(&site, &service, &["publish", one, "--reason", "no way back"]).await.error_with(6, &[two, "--back"]);
    command(&site, &service, &["publish", two, "--reason", "once more"]).await.error_with(6, &[two, "already"]);
    assert_eq!(latest(&site, &service).await.as_deref(), Some(two), "never backwards");
    command(&site, &service, &["retract", one, "--reason", "a doubt"]).await.result();
    let listed = command(&site, &service, &["publish", one, "--reason", "no doubt"]).await.result();
    assert_eq!((&listed["id"], &listed["latest"]), (&json!(one), &json!(two)), "listed again, and `latest` stays");
    assert_eq!(latest(&site, &service).await.as_deref(), Some(two));
    let moved = command(&site, &service, &["publish", one, "--reason", "back", "--back"]).await.result();
    assert_eq!(moved["latest"], json!(one));
    assert_eq!(latest(&site, &service).await.as_deref(), Some(one));
    let acts: Vec<(String, String)> =
        sqlx::query_as("select act, actor from snapshots.audit_log where act like 'snapshot.%' order by id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let act = |act: &str| (act.to_owned(), "local".to_owned());
    let (retract, publish) = (|| act("snapshot.retract"), || act("snapshot.publish"));
    assert_eq!(acts, [retract(), publish(), retract(), publish(), publish()], "what was refused was not done");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_a_snapshot_of_which_an_object_is_missing_or_cut_short() {
    let (site, _, service, first, second) = two_snapshots().await;
    let (one, two) = (first.snapshot_id.as_str(), second.snapshot_id.as_str());
    let lost = Key::Chunk(first.chunks.iter().find(|chunk| chunk.table == "events").unwrap().sha256.clone()).to_string();
    std::fs::remove_file(site.objects().join(&lost)).unwrap();
    command(&site, &service, &["publish", one, "--reason", "back", "--back"]).await.error_with(1, &[&lost, "is missing"]);
    assert_eq!(latest(&site, &service).await.as_deref(), Some(two));

    command(&site, &service, &["retract", two, "--reason", "bad"]).await.result();
    assert_eq!(latest(&site, &service).await, None, "the only other one is not complete");
    let archive = site.objects().join(Key::Archive(second.path()).to_string());
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &bytes[..bytes.len() - 1]).unwrap();
    let refused = command(&site, &service, &["publish", two, "--reason", "again"]).await;
    refused.error_with(1, &[&Key::Archive(second.path()).to_string(), "instead of"]);
    assert_eq!(latest(&site, &service).await, None);
    std::fs::write(&archive, bytes).unwrap();
    command(&site, &service, &["publish", two, "--reason", "again"]).await.result();
    assert_eq!(latest(&site, &service).await.as_deref(), Some(two));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_a_snapshot_whose_schema_checksum_or_signature_readers_would_refuse() {
    let (site, _, service, first, second) = two_snapshots().await;
    let (one, two) = (first.snapshot_id.as_str(), second.snapshot_id.as_str());
    // The second's schema may be the same object, so what is cut short is put back each time.
    let (sums, manifest) = (Key::Checksum(first.path()), Key::Manifest(first.path()));
    let read_by_all = [Key::Chunk(first.schema.sha256.clone()), sums.clone()];
    let signatures = [sums.signature(), manifest.signature(), Key::Pointer(first.path()).signature()];
    for key in read_by_all.iter().chain(&signatures) {
        let path = site.objects().join(key.to_string());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let back = async || command(&site, &service, &["publish", one, "--reason", "back", "--back"]).await;
        back().await.error_with(1, &[&key.to_string(), "is missing"]);
        if read_by_all.contains(key) {
            std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            back().await.error_with(1, &[&key.to_string()]);
        }
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(latest(&site, &service).await.as_deref(), Some(two));
    }
    command(&site, &service, &["publish", one, "--reason", "back", "--back"]).await.result();
    assert_eq!(latest(&site, &service).await.as_deref(), Some(one));
}

/// Puts another text into an object.
fn rewrite(site: &Site, key: &Key, (from, to): (&str, &str)) -> Vec<u8> {
    let path = site.objects().join(key.to_string());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{key} has no {from}");
    let bytes = text.replace(from, to).into_bytes();
    std::fs::write(&path, &bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_a_manifest_that_says_it_is_another_networks() {
    let site = growing_site(100, 99).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    let (one, two) = (first.snapshot_id.as_str(), second.snapshot_id.as_str());
    // As where somebody copied it here from a bucket of another network: everything else fits.
    let network = ("\"network\": \"mainnet\"", "\"network\": \"testnet\"");
    let before = hex::encode(Sha256::digest(first.to_bytes()));
    let after = hex::encode(Sha256::digest(rewrite(&site, &Key::Manifest(first.path()), network)));
    rewrite(&site, &Key::Pointer(first.path()), (&before, &after));
    let sql = "update snapshots.snapshot set manifest_sha256 = $1 where id = $2 and manifest_sha256 = $3";
    let changed = sqlx::query(sql).bind(&after).bind(one).bind(&before).execute(&pool).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
    let refused = command(&site, &service, &["publish", one, "--reason", "back", "--back"]).await;
    refused.error_with(1, &[&format!("the manifest of mainnet/{one} says that it is testnet/{one}")]);
    assert_eq!(latest(&site, &service).await.as_deref(), Some(two));
    command(&site, &service, &["retract", two, "--reason", "bad"]).await.result();
    assert_eq!(latest(&site, &service).await, None, "nor is it what is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_taken_back_before_it_was_promoted_stays_back() {
    let site = growing_site(300, 249).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 299).await;
    let hold = Hold::on_success(&pool, "publish").await;
    let run = service.start_run().await;
    hold.reached().await;
    let second = format!("{}.2", first.snapshot_id);
    command(&site, &service, &["retract", &second, "--reason", "too early"]).await.result();
    hold.release().await;
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().unwrap().contains("was taken back"), "{ended:#}");
    assert_eq!(latest(&site, &service).await, Some(first.snapshot_id));
    assert_eq!(service.get(&format!("/snapshots/{second}")).await.status(), 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_over_from_before_a_snapshot_that_was_taken_back() {
    let site = growing_site(300, 249).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    cut(&service, &pool, json!({})).await;
    grow(&pool, 299).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    command(&site, &service, &["retract", &second.snapshot_id, "--reason", "wrong"]).await.result();
    let (third, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse, Value::Null, "a row that the second had found changed would come back");
    equals_source(&pool, &third).await;
    let (_, reuse) = cut(&service, &pool, json!({})).await;
    assert!(reuse["reused"].as_u64().unwrap() > 0, "{reuse}");
}
