//! The `full` profile: everything comes back, for those who hold the identity, and nobody else learns anything.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use snapshot::encrypt::Identities;
use snapshot::manifest::Manifest;
use sqlx::PgPool;

use crate::support::{
    CANARIES, Hold, ServiceProcess, Site, Vault, add_tenants, bare_command, database, objects, run, site_with_chain, vault,
};

/// A digest of the rows of every table that is not ours, by name.
async fn contents(pool: &PgPool) -> BTreeMap<String, String> {
    let mut conn = pool.acquire().await.unwrap();
    let mut all = BTreeMap::new();
    for table in snapshot::full::tables(&mut conn).await.unwrap() {
        let sql = format!("select coalesce(md5(string_agg(t::text, chr(10) order by t::text)), '') from {} t", table.qualified());
        all.insert(table.name.clone(), sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *conn).await.unwrap());
    }
    all
}

async fn definitions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select concat_ws('|', table_schema, table_name, column_name, data_type, column_default, is_generated) from information_schema.columns
            where table_schema !~ '^(pg_|snapshots|apalis|information_schema)'
         union all select indexdef from pg_indexes where schemaname !~ '^(pg_|snapshots|apalis)'
         union all select conrelid::regclass::text || pg_get_constraintdef(oid) from pg_constraint
            where connamespace::regnamespace::text !~ '^(pg_|snapshots|apalis|information_schema)'
         union all select tgrelid::regclass::text || tgname from pg_trigger where not tgisinternal and tgrelid::regclass::text !~ '^(snapshots|apalis)'
         order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Every row of our own schemas, as text.
async fn ledger(pool: &PgPool) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('snapshots', 'apalis') and tablename !~ '^chain_'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut text = String::new();
    for table in tables {
        let sql = format!("select coalesce(string_agg(to_jsonb(t)::text, chr(10)), '') from {table} t");
        text.push_str(&sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap());
    }
    text
}

fn assert_lacks_canaries(what: &str, bytes: &[u8]) {
    for canary in CANARIES.iter().chain(&["AGE-SECRET-KEY", "view_01234567", "whales"]) {
        assert!(memchr::memmem::find(bytes, canary.as_bytes()).is_none(), "{canary} is in {what}");
    }
}

async fn cut(service: &ServiceProcess) -> Value {
    service.complete("full_profile", &json!({})).await["result"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_to_those_with_the_identity_and_nobody_else_learns_anything() {
    let site = site_with_chain(300).await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    add_tenants(&pool).await;
    let vault = vault(&site).await;
    let service = site.serve_with(&vault.env()).await;
    service.cut().await;
    let result = cut(&service).await;

    let stored = vault.objects();
    let id = result["id"].as_str().unwrap();
    for (key, bytes) in stored.iter().chain(&objects(&site.objects())) {
        assert_lacks_canaries(key, key.as_bytes());
        assert_lacks_canaries(key, bytes);
        if key.ends_with(".age") {
            assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{key}");
            let answer = service.get(&format!("/{key}")).await;
            assert_eq!(answer.status(), 404, "{key} is served");
        }
    }
    assert!(stored.contains_key(&format!("mainnet/{id}/manifest.json.age.minisig")), "{:?}", stored.keys());
    assert_lacks_canaries("the ledger", ledger(&pool).await.as_bytes());
    let status = service.json("/status").await;
    assert_eq!(status["snapshots"][0]["full"]["id"], id, "{status:#}");
    assert!(!String::from_utf8_lossy(&objects(&site.objects())["mainnet/status.json"]).contains("\"full\""));
    service.terminate().await;
    stock_age_opens(&vault, &stored).await;

    let target = database().await;
    let result = run(&mut vault.restore(&site, target.url())).await.result();
    assert_eq!(result["proved"], true, "{result:#}");
    let restored = target.pool().await;
    assert_eq!(definitions(&restored).await, definitions(&pool).await);
    let (mut now, mut then) = (contents(&restored).await, contents(&pool).await);
    for settled in ["jobs", "views", "view_01234567_moves.moves"] {
        assert_ne!(now.remove(settled), then.remove(settled), "{settled}");
    }
    assert_eq!(now, then);
    let next: i64 = sqlx::query_scalar("select nextval('view_01234567_moves.moves__id_seq')").fetch_one(&restored).await.unwrap();
    assert_eq!(next, 7, "a row id would be given twice");
    let missing =
        sqlx::query("delete from view_01234567_moves.moves where _id = (select min(_id) from view_01234567_moves.moves)");
    let mut tx = restored.begin().await.unwrap();
    assert_eq!(missing.execute(&mut *tx).await.unwrap().rows_affected(), 1);
    tx.commit().await.unwrap();
    let verify = run(site.client("verify", vault.bucket.root().to_str().unwrap(), target.url()).arg("--database")).await;
    verify.error_with(5, &["moves has"]);
    // Counts do not see these.
    for (sql, words) in [
        ("update public.blocks set parent_hash = 'x' where height = 40", ["names the one below", "1 do not"]),
        ("update public.blocks set canonical = false where height = 50", ["no gap in the blocks", "1 blocks are missing"]),
    ] {
        sqlx::raw_sql(sql).execute(&restored).await.unwrap();
        let mut verify = site.client("verify", vault.bucket.root().to_str().unwrap(), target.url());
        run(verify.arg("--database")).await.error_with(5, &words);
    }
    let target = database().await;
    run(&mut vault.restore(&site, target.url())).await.result();
    let again = run(&mut vault.restore(&site, target.url())).await.result();
    assert_eq!((&again["outcome"]["rows"], &again["proved"]), (&json!(0), &json!(true)), "nothing is left to do");
    let update = run(&mut site.client("update", &site.published(), target.url())).await;
    update.error_with(6, &["full profile"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_with_faults_comes_back_as_it_was_and_is_proved() {
    let site = site_with_chain(300).await;
    let vault = vault(&site).await;
    let faults = "update public.blocks set canonical = false where height = 50; update public.blocks set parent_hash = 'x' where height = 70";
    sqlx::raw_sql(faults).execute(&site.database.pool().await).await.unwrap();
    let service = site.serve_with(&vault.env()).await;
    cut(&service).await;
    service.terminate().await;
    let target = database().await;
    let ran = run(&mut vault.restore(&site, target.url())).await;
    assert!(ran.stdout.contains("no gap in the blocks") && ran.stdout.contains("but the 1 of the source"), "{}", ran.stdout);
    assert_eq!(ran.result()["proved"], true);
}

/// Where stock `age` is installed it reads what is stored.
async fn stock_age_opens(vault: &Vault, stored: &BTreeMap<String, Vec<u8>>) {
    let manifest = stored.keys().find(|key| key.ends_with("manifest.json.age")).unwrap();
    let mut age = tokio::process::Command::new("age");
    age.args(["-d", "-i"]).arg(&vault.identity).arg(vault.bucket.root().join(manifest));
    match age.output().await {
        Ok(output) => {
            let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(manifest["profile"], "full");
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => println!("skipped: age is not installed"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_identity_a_damaged_chunk_and_a_public_pointer_are_refused_and_a_restore_goes_on() {
    let site = site_with_chain(300).await;
    let vault = vault(&site).await;
    let service = site.serve_with(&vault.env()).await;
    cut(&service).await;
    service.terminate().await;
    let target = database().await;
    let other = site.dir.path().join("other");
    Identities::generate(&other).unwrap();
    let root = vault.bucket.root();
    let mut command = site.client("restore", root.to_str().unwrap(), target.url());
    command.args(["--profile", "full", "--identity"]).arg(&other);
    run(&mut command).await.error_with(8, &["identity"]);
    // Without the profile the bucket has no snapshot to offer.
    let mut plain = site.client("restore", root.to_str().unwrap(), target.url());
    run(&mut plain).await.error_with(6, &["profile"]);
    vault_damaged(&site, &vault, target.url()).await;
    let result = run(&mut vault.restore(&site, target.url())).await.result();
    assert_eq!(result["proved"], true);
    assert!(result["outcome"]["chunksBefore"].as_u64().unwrap() > 0, "it did not go on: {result}");
}

/// A chunk that is changed after it was stored is refused by its name; the others are loaded.
async fn vault_damaged(site: &Site, vault: &Vault, url: &str) {
    let stored = vault.objects();
    let (_, manifest) = stored.iter().find(|(key, _)| key.ends_with("manifest.json.age")).unwrap();
    let manifest = Identities::from_file(&vault.identity).unwrap().decrypt(manifest).unwrap();
    let manifest = Manifest::from_bytes(&manifest).unwrap();
    // The largest table is loaded first.
    let chunk = manifest.chunks.iter().find(|chunk| chunk.table == "index_progress").unwrap();
    let key = manifest.object(&chunk.sha256).to_string();
    let good = &stored[&key];
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let file = vault.bucket.root().join(key);
    std::fs::write(&file, bad).unwrap();
    run(vault.restore(site, url).arg("--check-first=never").arg("--jobs=1")).await.error_with(5, &["damaged"]);
    std::fs::write(file, good).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_verified_and_mirrored_as_it_is_stored_and_restored_from_the_mirror() {
    let site = site_with_chain(300).await.with_flags(&["--confirmations", "0"]);
    let vault = vault(&site).await;
    let service = site.serve_with(&vault.env()).await;
    service.cut().await;
    cut(&service).await;
    service.terminate().await;
    let (root, mirror) = (vault.bucket.root(), site.dir.path().join("mirror"));
    let verify = async |from: &Path, more: &[&str]| {
        let mut command = bare_command(&["verify", "--json", "--profile", "full", "--from", from.to_str().unwrap()]);
        command.env("SNAPSHOTS_DATA_DIR", site.dir.path()).env("SNAPSHOTS_PUBLIC_KEY", site.public_keys());
        run(command.arg("--identity").arg(&vault.identity).args(more)).await
    };
    let download = async |from: &str, profile: &str| {
        let mut command = bare_command(&["download", "--json", "--chunks", "--from", from, "--profile", profile]);
        command.env("SNAPSHOTS_DATA_DIR", site.dir.path()).env("SNAPSHOTS_PUBLIC_KEY", site.public_keys());
        run(command.arg("--output-dir").arg(&mirror).arg("--identity").arg(&vault.identity)).await
    };
    assert_eq!(verify(&root, &["--deep"]).await.result()["proved"], true);
    download(root.to_str().unwrap(), "full").await.result();
    assert_eq!(
        download(root.to_str().unwrap(), "full").await.result()["fetchedBytes"].as_u64().map(|bytes| bytes < 100_000),
        Some(true)
    );
    for (key, bytes) in objects(&mirror).iter().filter(|(key, _)| key.ends_with(".age")) {
        assert_eq!(vault.objects().get(key), Some(bytes), "{key} is not what is stored");
    }
    download(&site.published(), "public").await.error_with(6, &["mirrors the full profile"]);

    let target = database().await;
    let mut restore = site.client("restore", mirror.to_str().unwrap(), target.url());
    let restored = run(restore.args(["--profile", "full", "--identity"]).arg(&vault.identity)).await.result();
    assert_eq!(restored["proved"], true);

    let chunks = objects(&mirror).into_iter().filter(|(key, _)| key.ends_with(".zst.age"));
    let (largest, _) = chunks.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let path = mirror.join(&largest);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(verify(&mirror, &[]).await.result()["proved"], true, "its length is right");
    verify(&mirror, &["--deep"]).await.error(5);
    std::fs::remove_file(&path).unwrap();
    verify(&mirror, &[]).await.error(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_in_either_step_leaves_one_snapshot() {
    let site = site_with_chain(300).await;
    let pool = site.database.pool().await;
    let vault = vault(&site).await;
    let mut service = site.serve_with(&vault.env()).await;
    // What an attempt that died in the middle of its copy leaves.
    let today = chrono::Utc::now().date_naive();
    let left = vault.bucket.root().join(format!("mainnet/{today}/chunks/00/left.zst.age"));
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "age").unwrap();
    for (step, count) in [("dump", 1), ("promote", 2)] {
        let hold = Hold::on_success(&pool, step).await;
        let started = service.begin("full_profile", &json!({})).await;
        hold.reached().await;
        service.kill().await;
        let before = vault.objects();
        hold.abandon().await;
        service = site.serve_with(&vault.env()).await;
        let ended = service.ended(&started).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        let after = vault.objects();
        for (key, bytes) in before.iter().filter(|(key, _)| !key.ends_with("latest.json")) {
            assert!(after.get(key) == Some(bytes), "{key} was written again after the kill in {step}");
        }
        let manifests: Vec<&String> = after.keys().filter(|key| key.ends_with("manifest.json.age")).collect();
        assert_eq!(manifests.len(), count, "{manifests:?}");
        assert!(!left.exists(), "a whole copy may lie there for half a year");
    }
    let target = database().await;
    assert_eq!(run(&mut vault.restore(&site, target.url())).await.result()["proved"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_does_not_keep_goes_with_all_its_objects() {
    let flags =
        ["--keep-daily", "1", "--keep-weekly", "1", "--keep-monthly", "1", "--prune-grace-hours", "0", "--confirmations", "0"];
    let site = site_with_chain(300).await.with_flags(&flags);
    let vault = vault(&site).await;
    let service = site.serve_with(&vault.env()).await;
    service.cut().await;
    let (first, second) = (cut(&service).await, cut(&service).await);
    let dry = service.complete("prune", &json!({ "dryRun": true })).await;
    assert_eq!(dry["result"]["full"]["expired"], json!([first["id"]]));
    let pruned = service.complete("prune", &json!({})).await;
    assert_eq!(pruned["result"]["full"]["removed"], json!([first["id"]]), "{:#}", pruned["result"]);
    assert_eq!(pruned["result"]["full"]["kept"], json!([second["id"]]));
    let gone = format!("mainnet/{}/", first["id"].as_str().unwrap());
    assert!(!vault.objects().keys().any(|key| key.starts_with(&gone)));
    let target = database().await;
    assert_eq!(run(&mut vault.restore(&site, target.url())).await.result()["proved"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_recipients_refuses_and_has_no_schedule_for_it() {
    let site = site_with_chain(100).await;
    let service = site.serve().await;
    let answer = service.post_json("/workflows/full_profile/runs", &json!({})).await;
    assert_eq!(answer.status(), 409);
    assert!(answer.text().await.unwrap().contains("SNAPSHOTS_FULL_RECIPIENTS_FILE"));
    let names = |service: Value| -> Vec<String> {
        service["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let schedule = "nightly-full-profile".to_owned();
    assert!(!names(service.json("/schedules").await).contains(&schedule));
    service.terminate().await;
    let vault = vault(&site).await;
    let service = site.serve_with(&vault.env()).await;
    assert!(names(service.json("/schedules").await).contains(&schedule));
}
