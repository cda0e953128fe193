//! What is too old goes, what is named stays, and nothing goes while anything is in doubt.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use snapshot::key::Key;
use snapshot::manifest::Manifest;

use crate::embedded_s3::client_for;
use crate::support::{ServiceProcess, Site, cut, cut_unpromoted, grow, growing_site, run};

const KEEP_ONE: [&str; 8] = ["--keep-daily", "1", "--keep-weekly", "1", "--keep-monthly", "1", "--prune-grace-hours", "0"];

fn named(manifests: &[&Manifest]) -> BTreeSet<String> {
    let chunks = manifests.iter().flat_map(|manifest| &manifest.chunks).map(|chunk| chunk.sha256.clone());
    let schemas = manifests.iter().map(|manifest| manifest.schema.sha256.clone());
    chunks.chain(schemas).map(|sha256| Key::Chunk(sha256).to_string()).collect()
}

fn stored(site: &Site) -> BTreeSet<String> {
    site.keys().into_iter().filter(|key| key.starts_with("chunks/")).collect()
}

async fn prune(service: &ServiceProcess) -> Value {
    service.complete("prune", &json!({})).await["result"].clone()
}

async fn command(site: &Site, service: &ServiceProcess, args: &[&str]) -> Value {
    let mut command = site.command();
    command.env("SNAPSHOTS_URL", &service.url).args(args).arg("--json");
    run(&mut command).await.result()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_go_after_their_time_and_chunks_after_two_looks() {
    let site = growing_site(400, 249).await.with_flags(&KEEP_ONE);
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 299).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 399).await;
    let (third, _) = cut(&service, &pool, json!({})).await;
    let (one, two, three) = (&first.snapshot_id, &second.snapshot_id, &third.snapshot_id);
    command(&site, &service, &["pin", one, "--reason", "a reader needs it"]).await;

    let before = site.keys();
    let told = command(&site, &service, &["prune", "--dry-run"]).await;
    assert_eq!((&told["expired"], &told["kept"]), (&json!([two]), &json!([three, one])), "{told:#}");
    assert_eq!(site.keys(), before, "a dry run touches nothing");

    let report = prune(&service).await;
    assert_eq!(
        (&report["removed"], &report["chunks"], &report["unreferenced"]),
        (&json!([two]), &json!(0), &json!(0)),
        "{report:#}"
    );
    assert_eq!(service.get(&format!("/snapshots/{two}")).await.status(), 404);
    assert!(!site.keys().iter().any(|key| key.starts_with(&format!("mainnet/{two}/"))));
    assert_eq!(stored(&site), named(&[&first, &second, &third]), "its chunks wait");

    let noted = prune(&service).await;
    let garbage = named(&[&second]).difference(&named(&[&first, &third])).count();
    assert!(garbage > 0);
    assert_eq!((&noted["unreferenced"], &noted["chunks"]), (&json!(garbage), &json!(0)), "seen once: {noted:#}");
    let swept = prune(&service).await;
    assert_eq!((&swept["unreferenced"], &swept["chunks"]), (&json!(garbage), &json!(garbage)), "seen twice: {swept:#}");
    assert_eq!(stored(&site), named(&[&first, &third]));
    let last = prune(&service).await;
    assert_eq!((&last["unreferenced"], &last["expired"]), (&json!(0), &json!([])), "{last:#}");

    command(&site, &service, &["unpin", one]).await;
    assert_eq!(prune(&service).await["removed"], json!([one]));

    let expire = "update snapshots.snapshot set state = 'expired', expired_at = now() - interval '1 day' where id = $1";
    sqlx::query(expire).bind(three).execute(&pool).await.unwrap();
    assert_eq!(prune(&service).await["removed"], json!([]), "readers are sent to it");
    assert_eq!(service.get(&format!("/snapshots/{three}")).await.status(), 200);
    let lines: Vec<String> = sqlx::query_scalar("select act from snapshots.audit_log where act like 'snapshot.%' order by id")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(lines, ["snapshot.pin", "snapshot.unpin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_never_promoted_takes_no_place_and_goes_once_a_newer_one_is_promoted() {
    let site = growing_site(400, 249).await.with_flags(&KEEP_ONE);
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    let (second, third) = (cut_unpromoted(&service, &pool).await, cut_unpromoted(&service, &pool).await);
    let report = prune(&service).await;
    let all = json!([third, second, first.snapshot_id]);
    assert_eq!((&report["kept"], &report["expired"]), (&all, &json!([])), "somebody may still prove them: {report:#}");

    let (fourth, _) = cut(&service, &pool, json!({})).await;
    command(&site, &service, &["pin", &second, "--reason", "somebody looks at it"]).await;
    let report = prune(&service).await;
    assert_eq!(report["kept"], json!([fourth.snapshot_id, second]), "{report:#}");
    assert_eq!(report["expired"], json!([third, first.snapshot_id]), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_while_a_manifest_is_missing_or_unreadable_or_a_chunk_is_young() {
    let site = growing_site(300, 299).await.with_flags(&["--prune-grace-hours", "1"]);
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (manifest, _) = cut(&service, &pool, json!({})).await;
    let stray = site.objects().join("chunks/aa");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join(format!("{}.zst", "a".repeat(64))), b"nobody's").unwrap();
    prune(&service).await;
    let young = prune(&service).await;
    assert_eq!((&young["unreferenced"], &young["chunks"]), (&json!(1), &json!(0)), "{young:#}");

    let path = site.objects().join(Key::Manifest(manifest.path()).to_string());
    let bytes = std::fs::read(&path).unwrap();
    for (damage, words) in [(None, "is gone"), (Some(&b"{}"[..]), "cannot be read")] {
        match damage {
            None => std::fs::remove_file(&path).unwrap(),
            Some(damage) => std::fs::write(&path, damage).unwrap(),
        }
        let run = service.begin("prune", &json!({})).await;
        let ended = service.ended(&run).await;
        assert_eq!(ended["state"], "failed", "{ended:#}");
        assert!(ended["error"].as_str().unwrap().contains(words), "{}", ended["error"]);
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(prune(&service).await["unreferenced"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_goes_on_with_are_aborted_and_young_ones_are_left_alone() {
    let site = growing_site(100, 99).await.with_flags(&["--prune-grace-hours", "1"]);
    let service = site.serve().await;
    let client = client_for(site.bucket.config());
    let bucket = site.bucket.name();
    let mut ids = Vec::new();
    for key in ["mainnet/2026-01-01/a.tar.zst", "mainnet/2026-01-02/a.tar.zst", "testnet/2026-01-01/a.tar.zst"] {
        let begun = client.create_multipart_upload().bucket(bucket).key(key).send().await.unwrap();
        ids.push(begun.upload_id().unwrap().to_owned());
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    for id in [&ids[0], &ids[2]] {
        let files = std::fs::read_dir(site.objects().parent().unwrap()).unwrap().map(|entry| entry.unwrap());
        let begun = files.filter(|entry| entry.file_name().to_str().unwrap().contains(&format!(".upload-{id}.metadata")));
        for file in begun {
            std::fs::File::options().append(true).open(file.path()).unwrap().set_modified(long_ago).unwrap();
        }
    }
    assert_eq!(prune(&service).await["uploads"], json!(1));
    let left = client.list_multipart_uploads().bucket(bucket).send().await.unwrap();
    let left: Vec<_> = left.uploads().iter().map(|upload| upload.upload_id().unwrap()).collect();
    assert_eq!(left, [&ids[1], &ids[2]], "one is young, one is of a network that this service does not look after");
}
