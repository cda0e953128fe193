//! The runbooks of `docs/operations` that are about published snapshots, run as they stand there.

use snapshot::sign::KeyState;

use crate::support::{Site, bucket, database, grow, growing_site, runbook};

/// What a reader's machine knows.
fn reader<'a>(site: &Site, from: &'a str, keys: &'a str, dir: &'a str, url: &'a str) -> [(&'static str, &'a str); 4] {
    assert!(site.dir.path().exists());
    [("SNAPSHOTS_FROM", from), ("SNAPSHOTS_PUBLIC_KEY", keys), ("SNAPSHOTS_DATA_DIR", dir), ("DATABASE_URL", url)]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runbook_for_restores_does_what_it_says() {
    let site = growing_site(500, 400).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    service.cut().await;
    let book = runbook("restore");
    let (target, other, dir) = (database().await, database().await, site.dir.path().join("reader"));
    let (from, keys, dir) = (site.published(), site.public_keys(), dir.to_str().unwrap().to_owned());
    let mut env = reader(&site, &from, &keys, &dir, target.url()).to_vec();
    env.push(("OTHER_DATABASE_URL", other.url()));
    for heading in ["See what it takes", "Restore and prove"] {
        book.run(heading, site.dir.path(), &env).await;
    }
    grow(&pool, 499).await;
    let newest = service.cut().await;
    book.run("Bring it up to date later", site.dir.path(), &env).await;
    let height: i64 = sqlx::query_scalar("select max(height) from public.blocks").fetch_one(&target.pool().await).await.unwrap();
    assert_eq!(height, newest.block_height.cast_signed());
    book.run("Only some heights", site.dir.path(), &env).await;
    let part: (i64, i64) =
        sqlx::query_as("select min(height), max(height) from public.blocks").fetch_one(&other.pool().await).await.unwrap();
    assert_eq!(part, (200, 300));
    book.was_run();
    service.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runbook_for_a_new_region_does_what_it_says() {
    let site = growing_site(500, 400).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
    let book = runbook("new-region");
    let (target, dir, mirror) = (database().await, site.dir.path().join("reader"), site.dir.path().join("mirror"));
    let recording = site.dir.path().join("node.jsonl.gz");
    // The blocks after the snapshot, as a node would have recorded them.
    let made = ["chain", "generate", "--json", "--blocks", "500", "--seed", "7", "--profile", "quiet", "--out"];
    assert!(crate::support::bare_command(&made).arg(&recording).output().await.unwrap().status.success());
    let (from, keys, dir) = (site.published(), site.public_keys(), dir.to_str().unwrap().to_owned());
    let mut env = reader(&site, &from, &keys, &dir, target.url()).to_vec();
    env.extend([("MIRROR", mirror.to_str().unwrap()), ("RECORDING", recording.to_str().unwrap())]);
    book.run("Bring the objects over once", site.dir.path(), &env).await;
    // The line to the old region is not used any more.
    env[0].1 = "https://unreachable.invalid";
    book.run("Restore from there", site.dir.path(), &env).await;
    let pool = target.pool().await;
    let tip = async || -> i64 {
        let sql = "select last_contiguous_block from public.index_progress";
        sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap()
    };
    assert_eq!(tip().await, manifest.block_height.cast_signed());
    book.run("Catch up and route", site.dir.path(), &env).await;
    assert!(tip().await > manifest.block_height.cast_signed(), "{}", tip().await);
    book.was_run();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runbook_for_key_rotation_does_what_it_says() {
    let site = growing_site(400, 399).await;
    let service = site.serve().await;
    let book = runbook("key-rotation");
    let (keys, data_dir) = (site.keyring().dir().to_str().unwrap().to_owned(), site.dir.path().to_str().unwrap().to_owned());
    let env = [("SNAPSHOTS_SIGNING_KEY_DIR", keys.as_str()), ("SNAPSHOTS_DATA_DIR", &data_dir)];
    let live = || -> Vec<String> {
        let keys = site.keyring().published().unwrap();
        keys.into_iter().filter(|key| key.state != KeyState::Retired).map(|key| key.id).collect()
    };
    let before = live();
    book.run("See the keys", site.dir.path(), &env).await;
    book.run("Rotate", site.dir.path(), &env).await;
    let after = live();
    assert_eq!(after[0], before[1], "the next one signs");
    let told = book.run("Tell the readers", site.dir.path(), &env).await.stdout;
    assert!(after.iter().all(|id| told.contains(id)), "{told}");
    book.run("After a theft", site.dir.path(), &env).await;
    assert!(live().iter().all(|id| !after.contains(id)), "neither key that lay there signs any more");
    book.was_run();
    service.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runbook_for_the_loss_of_a_bucket_does_what_it_says() {
    let site = growing_site(400, 399).await;
    let service = site.serve().await;
    let lost = service.cut().await;
    let book = runbook("bucket-loss");
    let (mirror, dir) = (site.dir.path().join("mirror"), site.dir.path().to_str().unwrap().to_owned());
    let (from, keys) = (site.published(), site.public_keys());
    let env = [
        ("SNAPSHOTS_FROM", from.as_str()),
        ("SNAPSHOTS_PUBLIC_KEY", &keys),
        ("SNAPSHOTS_DATA_DIR", &dir),
        ("MIRROR", mirror.to_str().unwrap()),
        ("LOST", &lost.snapshot_id),
    ];
    book.run("Keep a mirror beforehand", site.dir.path(), &env).await;
    service.terminate().await;
    std::fs::remove_dir_all(site.objects()).unwrap();
    let another = bucket().await;
    let service = site.serve_with(&[("S3_BUCKET", another.name())]).await;
    book.run("Serve readers meanwhile", site.dir.path(), &env).await;
    book.run("Publish anew", site.dir.path(), &env).await;
    let listed = book.run("Let the catalog forget what is gone", site.dir.path(), &env).await.stdout;
    assert!(
        !listed.lines().any(|line| line.split_whitespace().nth(1) == Some(&lost.snapshot_id) && line.starts_with("mainnet")),
        "{listed}"
    );
    service.complete("prune", &serde_json::json!({})).await;
    let read = site.client("verify", another.root().to_str().unwrap(), site.database.url());
    assert_eq!(crate::support::run(read).await.result()["proved"], true, "readers who saw the lost one take the new one");
    book.was_run();
    service.terminate().await;
}
