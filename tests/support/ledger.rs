//! What must hold after any fault: the ledger tells what happened, and what is published is whole.
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use snapshot::key::Key;
use snapshot::manifest::Manifest;

use super::service::Site;

/// A run (as `GET /runs/{id}` shows it) has succeeded and its history adds up: every step has succeeded in one attempt, its
/// last; each attempt has an end, and begins after the end of the one before.
pub(crate) fn ledger_is_true(run: &Value) {
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert!(run["doneAt"].is_string() && run["error"].is_null(), "{run:#}");
    for step in run["steps"].as_array().unwrap() {
        assert_eq!(step["state"], "succeeded", "{step:#}");
        let attempts: Vec<&Value> = attempts(run).filter(|attempt| attempt["stepId"] == step["id"]).collect();
        let (last, earlier) = attempts.split_last().unwrap_or_else(|| panic!("never tried: {step:#}"));
        assert_eq!(last["outcome"], "succeeded", "{attempts:#?}");
        assert!(
            earlier.iter().all(|attempt| attempt["outcome"].is_string() && attempt["outcome"] != "succeeded"),
            "{attempts:#?}"
        );
        let number = |attempt: &Value| attempt["no"].as_i64().unwrap();
        for pair in attempts.windows(2) {
            let spent = i64::from(pair[0]["outcome"] != "yielded");
            assert_eq!(number(pair[1]), number(pair[0]) + spent, "{attempts:#?}");
            assert!(time(&pair[1]["startedAt"]) >= time(&pair[0]["doneAt"]), "two attempts at once: {attempts:#?}");
        }
    }
}

/// Outcomes and numbers of the attempts at the step of this name, oldest first.
pub(crate) fn attempts_of<'a>(run: &'a Value, step: &str) -> Vec<(&'a str, i64)> {
    let steps = run["steps"].as_array().unwrap();
    let step = steps.iter().find(|found| found["name"] == step && found["kind"] != "child").unwrap();
    let of_step = attempts(run).filter(|attempt| attempt["stepId"] == step["id"]);
    of_step.map(|attempt| (attempt["outcome"].as_str().unwrap_or("open"), attempt["no"].as_i64().unwrap())).collect()
}

fn attempts(run: &Value) -> impl Iterator<Item = &Value> {
    run["attempts"].as_array().unwrap().iter()
}

fn time(stamp: &Value) -> chrono::DateTime<chrono::Utc> {
    stamp.as_str().unwrap().parse().unwrap()
}

/// The bucket holds one snapshot, `latest` names it, and every byte of it is what its manifest says.
pub(crate) fn one_whole_snapshot(site: &Site) -> Manifest {
    let keys = site.keys();
    let manifests: Vec<&String> = keys.iter().filter(|key| key.ends_with("manifest.json")).collect();
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    let manifest = Manifest::from_bytes(&std::fs::read(site.objects().join(manifests[0])).unwrap()).unwrap();
    whole(site, &manifest);
    assert_eq!(latest(site), manifest.snapshot_id);
    manifest
}

/// Id of the snapshot that the network's `latest.json` in the bucket names.
pub(crate) fn latest(site: &Site) -> String {
    let pointer = site.objects().join(Key::Latest("mainnet".into()).to_string());
    let pointer: Value = serde_json::from_slice(&std::fs::read(pointer).unwrap()).unwrap();
    pointer["snapshot_id"].as_str().unwrap().to_owned()
}

/// Archive and chunks are there and have the digests of the manifest.
pub(crate) fn whole(site: &Site, manifest: &Manifest) {
    let archive = site.objects().join(Key::Archive(manifest.path()).to_string());
    assert_eq!(format!("sha256:{}", sha256(&archive)), manifest.checksum);
    assert_eq!(std::fs::metadata(&archive).unwrap().len(), manifest.size_bytes);
    for chunk in &manifest.chunks {
        let object = site.objects().join(Key::Chunk(chunk.sha256.clone()).to_string());
        assert_eq!(sha256(&object), chunk.sha256);
    }
}

fn sha256(path: &Path) -> String {
    hex::encode(Sha256::digest(std::fs::read(path).unwrap()))
}
