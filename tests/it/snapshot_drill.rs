//! Restore drills: nobody is sent to a snapshot before both ways of restoring it were proved, and older ones are tried again.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use snapshot::drill::{Mode, Record, Way};
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer};

use crate::support::{
    FlakyServer, Hold, Home, ServiceProcess, Site, cut, database, grow, growing_site, home, latest, run, site_with_chain,
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A service that proves its snapshots on private clusters in `drills`.
async fn serve(site: &Site, drills: &Home, mode: &str) -> ServiceProcess {
    site.serve_with(&[("SNAPSHOTS_DRILL", mode), ("SNAPSHOTS_DRILL_DIR", drills.text())]).await
}

fn object(site: &Site, key: &Key) -> Vec<u8> {
    std::fs::read(site.objects().join(key.to_string())).unwrap()
}

/// What lies beside a snapshot, believed only with its signature.
fn record(site: &Site, manifest: &Manifest) -> Record {
    let key = Key::Drill(manifest.path());
    let (bytes, signature) = (object(site, &key), object(site, &key.signature()));
    site.keyring().trusted().unwrap().verify(&key, &bytes, &signature).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn pointer(site: &Site) -> Pointer {
    serde_json::from_slice(&object(site, &Key::Latest("mainnet".into()))).unwrap()
}

async fn events(site: &Site, run: &str, kind: &str) -> Vec<Value> {
    let pool = site.database.pool().await;
    let sql =
        "select jsonb_build_object('level', level, 'data', data) from snapshots.event where run_id = $1::uuid and kind = $2";
    sqlx::query_scalar(sql).bind(run).bind(kind).fetch_all(&pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_promoted_only_after_both_ways_of_restoring_it_were_proved() {
    let (site, drills) = (site_with_chain(1_000).await.with_embedded_bucket(), home());
    let service = serve(&site, &drills, "full").await;
    let first = service.cut().await;
    let proved = record(&site, &first);
    assert!(proved.proved && proved.problem.is_none(), "{proved:#?}");
    assert_eq!(
        (proved.mode, proved.chunks, proved.chunks_of),
        (Mode::Full, first.chunks.len() as u64, first.chunks.len() as u64)
    );
    assert_eq!(proved.paths.iter().map(|path| path.way).collect::<Vec<_>>(), [Way::Stock, Way::Own]);
    for path in &proved.paths {
        assert!(path.proved && path.checks > 8 && path.failed.is_empty() && path.database_bytes > 1 << 20, "{path:#?}");
        assert!(path.rows > first.tables["events"].rows && path.rto_seconds > 0.0 && path.fetched_bytes > 0, "{path:#?}");
    }
    let steps: Vec<&str> = proved.paths[0].steps.iter().map(|step| step.name.split(' ').next().unwrap()).collect();
    assert_eq!(steps, ["curl", "curl", "sha256sum", "tar", "rm", "pg_restore"]);
    assert_eq!(pointer(&site).drill, Some(proved.summary()));
    assert_eq!(drills.left_by_drills(), Vec::<String>::new(), "the drill left something behind");
    let joined = service.json(&format!("/snapshots/{}", first.snapshot_id)).await;
    assert_eq!((&joined["drill"]["proved"], &joined["block_height"]), (&json!(true), &json!(first.block_height)));
    let said = run(site.command().args(["show", &first.snapshot_id, "--url", &service.url])).await;
    assert!(said.stdout.contains("drill     proved") && said.stdout.contains("s by stock tools"), "{}", said.stdout);
    let status = service.json("/status").await;
    let shown = &status["snapshots"][0];
    assert_eq!((&shown["state"], &shown["drill"]["mode"]), (&json!("fresh"), &json!("full")), "{shown:#}");
    assert_eq!(shown["drill"]["proved"]["id"], json!(first.snapshot_id));

    // What is published is spoiled between the publication and the drill.
    let pool = site.database.pool().await;
    let hold = Hold::on_success(&pool, "publish").await;
    let run = service.start_run().await;
    hold.reached().await;
    let second = format!("{}.2", first.snapshot_id);
    let archive = site.objects().join(format!("mainnet/{second}/snapshot-{second}.tar.zst"));
    let good = std::fs::read(&archive).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&archive, bad).unwrap();
    hold.release().await;
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().unwrap().contains("sha256sum"), "{ended:#}");
    assert_eq!(latest(&site), first.snapshot_id, "`latest` stays where it was");
    let alarms = events(&site, &run, workflows::drill::FAILED).await;
    assert!(alarms.len() == 1 && alarms[0]["level"] == "error" && alarms[0]["data"]["snapshot"] == json!(second), "{alarms:?}");
    let shown = &service.json("/mainnet/status.json").await;
    assert_eq!((&shown["state"], &shown["drill"]["last"]["proved"]), (&json!("failed-audit"), &json!(false)), "{shown:#}");
    let own = &service.json(&format!("/snapshots/{second}")).await["drill"]["paths"][1];
    assert_eq!((&own["way"], &own["proved"]), (&json!("own"), &json!(true)), "chunks are as they were");

    let pruned = crate::support::run(site.command().args(["prune", "--json", "--url", &service.url])).await.result();
    let kept = pruned["kept"].as_array().unwrap();
    assert!(kept.contains(&json!(first.snapshot_id)) && kept.contains(&json!(second)), "{pruned:#}");
    std::fs::write(&archive, good).unwrap();
    assert_eq!(service.post(&format!("/runs/{run}/retry")).await.status(), 202);
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(latest(&site), second);
    assert_eq!(service.json("/mainnet/status.json").await["state"], "fresh");
    assert_eq!(drills.left_by_drills(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_refuses_its_readers_is_no_verdict_on_a_snapshot() {
    let (site, drills) = (site_with_chain(600).await, home());
    let server = FlakyServer::start(site.objects()).await;
    let env = [("SNAPSHOTS_DRILL", "sample"), ("SNAPSHOTS_DRILL_DIR", drills.text()), ("PUBLIC_BASE_URL", server.url.as_str())];
    let service = site.serve_with(&env).await;
    let pool = site.database.pool().await;
    server.close(Some(""));
    let run = service.start_run().await;
    let refused = async |times: i64| {
        let sql = "select count(*) from snapshots.attempt a join snapshots.step s on s.id = a.step_id
                   where s.run_id = $1::uuid and s.name = 'drill' and a.error like '%403%'";
        wait_until(PATIENCE, "a drill is refused", async || {
            sqlx::query_scalar::<_, i64>(sql).bind(&run).fetch_one(&pool).await.unwrap() == times
        })
        .await;
        assert!(!site.keys().iter().any(|key| key.contains("drill.json")), "a verdict was published");
    };
    refused(1).await;
    server.close(Some("chunks/"));
    refused(2).await;
    server.close(None);
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert!(pointer(&site).drill.is_some_and(|drill| drill.at.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_passes_where_events_stand_at_other_heights_than_their_transactions() {
    let (site, drills) = (growing_site(3_300, 3_299).await.with_embedded_bucket(), home());
    let pool = site.database.pool().await;
    // Of four ranges two are drawn, the newest among them: whatever the other is, transactions of two stay behind.
    let mined_again = "update public.events e set tx_id = t.tx_id
        from (select row_number() over () as n, tx_id from (select distinct on (block_height / 1000) tx_id from public.transactions where block_height < 3000) x) t,
             (select row_number() over () as n, id from public.events where block_height > 3000 limit 3) moved
        where e.id = moved.id and t.n = moved.n";
    assert_eq!(sqlx::raw_sql(mined_again).execute(&pool).await.unwrap().rows_affected(), 3);
    let service = site.serve_with(&[("SNAPSHOTS_DRILL", "sample"), ("SNAPSHOTS_DRILL_DIR", drills.text())]).await;
    let (manifest, _) = cut(&service, &pool, json!({})).await;
    let record = record(&site, &manifest);
    assert!(record.proved && record.chunks < record.chunks_of, "{record:#?}");
    assert_eq!(latest(&site), manifest.snapshot_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_night_an_older_snapshot_is_restored_again_and_one_that_rotted_raises_an_alarm() {
    let (site, drills) = (growing_site(300, 249).await.with_embedded_bucket(), home());
    let pool = site.database.pool().await;
    let lent = database().await;
    let [mode, dir] = [("SNAPSHOTS_DRILL", "sample"), ("SNAPSHOTS_DRILL_DIR", drills.text())];
    let service = site.serve_with(&[mode, dir, ("SNAPSHOTS_DRILL_DATABASE_URL", lent.url())]).await;
    let none = service.complete("restore_drill", &json!({})).await;
    assert_eq!(none["state"], "succeeded", "nothing is promoted yet");
    let (older, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 299).await;
    let (newer, _) = cut(&service, &pool, json!({ "full": true })).await;
    assert_eq!((record(&site, &newer).mode, pointer(&site).drill.unwrap().own_rto_seconds), (Mode::Sample, None));
    let before = record(&site, &older);
    assert_eq!(before.paths.iter().map(|path| path.way).collect::<Vec<_>>(), [Way::Own], "a sample needs no stock tools");

    // Asked for as the schedule does, but for all of it.
    service.complete("restore_drill", &json!({ "mode": "full" })).await;
    let again = record(&site, &older);
    assert_eq!((again.mode, again.proved, again.paths.len()), (Mode::Full, true, 2), "of two, the older one is chosen");
    assert!(again.ended_at >= before.ended_at && again.rto_seconds(Way::Stock).is_some());

    let lost = older.chunks.iter().find(|chunk| !newer.chunks.contains(chunk)).unwrap();
    std::fs::remove_file(site.objects().join(Key::Chunk(lost.sha256.clone()).to_string())).unwrap();
    let rotten = service.begin("restore_drill", &json!({ "id": older.snapshot_id, "mode": "full" })).await;
    let ended = service.ended(&rotten).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert_eq!(events(&site, &rotten, workflows::drill::FAILED).await.len(), 1);
    let found = record(&site, &older);
    assert!(!found.proved && found.problem.as_ref().unwrap().contains(&lost.sha256), "{found:#?}");
    assert!(found.paths[0].proved && !found.paths[1].proved, "the archive is a copy of its own");
    let shown = service.json("/status").await["snapshots"][0].clone();
    assert_eq!((&shown["state"], &shown["snapshot"]["id"]), (&json!("failed-audit"), &json!(newer.snapshot_id)), "{shown:#}");
    assert!(shown["drill"]["problem"].as_str().unwrap().starts_with(&older.snapshot_id), "{shown:#}");
    let (old, new) = (older.snapshot_id.as_str(), newer.snapshot_id.as_str());
    let sent = service.begin("publish", &json!({ "id": old, "reason": "a test", "back": true })).await;
    let refused = service.ended(&sent).await;
    assert!(refused["error"].as_str().unwrap().contains("restore drill"), "{refused:#}");
    service.complete("retract", &json!({ "id": new, "reason": "a test" })).await;
    assert!(!site.objects().join("mainnet/latest.json").exists(), "readers are led back to what does not restore");
    service.complete("publish", &json!({ "id": new, "reason": "a test" })).await;
    assert_eq!(latest(&site), new);
    service.complete("retract", &json!({ "id": old, "reason": "a chunk is lost" })).await;
    assert_eq!(service.json("/status").await["snapshots"][0]["state"], "fresh", "nobody is sent to it any more");

    // Another archive of the same length, with a checksum of its own beside it.
    let [archive, sums] =
        [Key::Archive(newer.path()), Key::Checksum(newer.path())].map(|key| site.objects().join(key.to_string()));
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let digest = hex::encode(Sha256::digest(&bytes));
    std::fs::write(&archive, bytes).unwrap();
    std::fs::write(&sums, format!("{digest}  {}\n", newer.path().archive_name())).unwrap();
    let begun = service.begin("restore_drill", &json!({ "id": new, "mode": "full" })).await;
    assert_eq!(service.ended(&begun).await["state"], "failed");
    let problem = record(&site, &newer).problem.unwrap();
    assert!(problem.contains(&digest) && problem.contains(&newer.checksum), "{problem}");

    // No archive, and nothing else.
    std::fs::remove_file(&archive).unwrap();
    let begun = service.begin("restore_drill", &json!({ "id": new, "mode": "full" })).await;
    assert_eq!(service.ended(&begun).await["state"], "failed");
    let found = record(&site, &newer);
    assert!(!found.proved && found.problem.as_ref().unwrap().contains("is not there"), "{found:#?}");
    assert_eq!(found.paths.iter().map(|path| path.proved).collect::<Vec<_>>(), [false, true]);

    let unknown = service.begin("restore_drill", &json!({ "id": "1999-01-01" })).await;
    assert_eq!(service.ended(&unknown).await["state"], "failed");
    assert_eq!(drills.left_by_drills(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_drill_found_stands_until_a_full_one_proves_the_snapshot() {
    let (site, drills) = (growing_site(300, 299).await.with_embedded_bucket(), home());
    let pool = site.database.pool().await;
    let lent = database().await;
    let [mode, dir] = [("SNAPSHOTS_DRILL", "sample"), ("SNAPSHOTS_DRILL_DIR", drills.text())];
    let service = site.serve_with(&[mode, dir, ("SNAPSHOTS_DRILL_DATABASE_URL", lent.url())]).await;
    let (manifest, _) = cut(&service, &pool, json!({})).await;
    let (id, proved) = (manifest.snapshot_id.as_str(), record(&site, &manifest));
    assert_eq!(pointer(&site).drill.unwrap().age_seconds, Some(proved.age_seconds), "how old the proved data was");

    // A sample does not look at the archive.
    let archive = site.objects().join(Key::Archive(manifest.path()).to_string());
    let good = std::fs::read(&archive).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&archive, bad).unwrap();
    for mode in ["full", "sample", "sample"] {
        let run = service.begin("restore_drill", &json!({ "id": id, "mode": mode })).await;
        let ended = service.ended(&run).await;
        assert!(ended["state"] == "failed" && ended["error"].as_str().unwrap().contains("sha256sum"), "{mode}: {ended:#}");
        let shown = service.json("/mainnet/status.json").await;
        assert_eq!((&shown["state"], &shown["drill"]["last"]["mode"]), (&json!("failed-audit"), &json!(mode)), "{shown:#}");
        assert!(shown["drill"]["problem"].as_str().unwrap().contains("sha256sum"), "{shown:#}");
    }
    let last = record(&site, &manifest);
    assert!(!last.proved && last.paths.iter().all(|path| path.proved), "{last:#?}");
    assert_eq!(last.standing.unwrap().mode, Mode::Full);
    service.complete("retract", &json!({ "id": id, "reason": "a test" })).await;
    let sent = service.begin("publish", &json!({ "id": id, "reason": "a sample passed" })).await;
    let refused = service.ended(&sent).await;
    assert!(refused["error"].as_str().unwrap().contains("full"), "{refused:#}");

    std::fs::write(&archive, good).unwrap();
    service.complete("restore_drill", &json!({ "id": id, "mode": "full" })).await;
    assert!(record(&site, &manifest).proved && record(&site, &manifest).standing.is_none());
    service.complete("publish", &json!({ "id": id, "reason": "the archive is whole again" })).await;
    assert_eq!(service.json("/mainnet/status.json").await["state"], "fresh");
    service.complete("restore_drill", &json!({ "id": id, "mode": "sample" })).await;
    assert!(record(&site, &manifest).proved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_could_not_prove_its_snapshots_does_not_start_unless_told_so() {
    let site = site_with_chain(1_000).await;
    let serve = |mode: &'static str| {
        let mut command = site.command();
        command.args(["serve", "--json", "--listen", "127.0.0.1:0"]).env("SNAPSHOTS_DRILL", mode).env("PATH", "/nonexistent");
        command
    };
    run(serve("full")).await.error_with(4, &["curl", "--drill sample", "SNAPSHOTS_DRILL_DATABASE_URL"]);
    let unproved = ServiceProcess::start({
        let mut command = serve("off");
        command.stdout(std::process::Stdio::piped());
        command
    })
    .await;
    let refused = unproved.post_json("/workflows/restore_drill/runs", &json!({})).await;
    assert!(refused.status().is_client_error(), "{}", refused.status());
    assert!(refused.text().await.unwrap().contains("--drill off"));
}
