//! What must not be restored is refused before the first row, with its cause, and the database stays as it was.

use serde_json::json;
use sha2::{Digest, Sha256};
use snapshot::key::Key;
use snapshot::manifest::Pointer;
use snapshot::sign::{Keyring, Password};
use sqlx::PgPool;

use crate::support::{Site, TestDatabase, database, published, run, site_with_chain};

/// Everything that is in a database but the catalog.
async fn contents(pool: &PgPool) -> Vec<String> {
    let sql = "select relnamespace::regnamespace::text || '.' || relname from pg_class
               where relnamespace::regnamespace::text not in ('pg_catalog', 'information_schema', 'pg_toast') order by 1";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

/// Restores into a fresh database with these arguments; it must end with this code and these words, and write nothing.
async fn refused(site: &Site, args: &[&str], code: i32, words: &[&str]) {
    let target = database().await;
    refused_in(&target, site, args, code, words).await;
}

async fn refused_in(target: &TestDatabase, site: &Site, args: &[&str], code: i32, words: &[&str]) {
    let pool = target.pool().await;
    let before = contents(&pool).await;
    run(site.client("restore", &site.published(), target.url()).args(args)).await.error_with(code, words);
    assert_eq!(contents(&pool).await, before, "something was written");
}

/// Changes an object, checks, and puts it back.
async fn while_changed(site: &Site, key: &Key, change: impl FnOnce(&mut Vec<u8>), check: impl AsyncFnOnce()) {
    let path = site.objects().join(key.to_string());
    let right = std::fs::read(&path).unwrap();
    let mut wrong = right.clone();
    change(&mut wrong);
    std::fs::write(&path, wrong).unwrap();
    check().await;
    std::fs::write(&path, right).unwrap();
}

async fn while_gone(site: &Site, key: &Key, check: impl AsyncFnOnce()) {
    let (path, aside) = (site.objects().join(key.to_string()), site.dir.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    check().await;
    std::fs::rename(&aside, &path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_keys_and_age_are_checked_before_anything_else() {
    let (site, manifest) = published(1_000).await;
    let path = manifest.path();
    let changed = |bytes: &mut Vec<u8>| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"sequence\": 1", "\"sequence\": 7").into()
    };
    for key in [Key::Manifest(path.clone()), Key::Latest("mainnet".into())] {
        while_changed(&site, &key, changed, async || refused(&site, &[], 6, &["not what was signed"]).await).await;
    }
    while_gone(&site, &Key::Manifest(path.clone()).signature(), async || refused(&site, &[], 6, &["has no signature"]).await)
        .await;
    let other_signature = std::fs::read(site.objects().join(Key::Checksum(path.clone()).signature().to_string())).unwrap();
    let swap = |bytes: &mut Vec<u8>| *bytes = other_signature;
    while_changed(&site, &Key::Manifest(path.clone()).signature(), swap, async || {
        refused(&site, &[], 6, &["not what was signed"]).await
    })
    .await;

    let stranger = Keyring::new(site.dir.path().join("stranger"), Password::default());
    let keys = stranger.generate().unwrap();
    let target = database().await;
    let mut command = site.client("restore", &site.published(), target.url());
    let ran = run(command.env("SNAPSHOTS_PUBLIC_KEY", &keys[0].public_key)).await;
    ran.error_with(6, &[&keys[0].id, &site.keyring().published().unwrap()[0].id, "not among the trusted keys"]);
    run(command.env("SNAPSHOTS_PUBLIC_KEY", "")).await.error_with(6, &["no public key is trusted", "--public-key"]);
    run(command.env("SNAPSHOTS_PUBLIC_KEY", "nonsense")).await.error_with(2, &["nonsense", "minisign"]);
    refused(&site, &["--id", "1999-01-01"], 4, &["1999-01-01"]).await;
    assert!(contents(&target.pool().await).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latest_that_goes_back_or_stands_still_is_noticed() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let first = service.cut().await;
    let second = service.cut().await;
    service.terminate().await;
    run(site.client("restore", &site.published(), database().await.url()).arg("--dry-run")).await.result();
    let old = std::fs::read(site.objects().join(Key::Pointer(first.path()).to_string())).unwrap();
    while_changed(
        &site,
        &Key::Latest("mainnet".into()),
        |bytes| *bytes = old,
        async || {
            refused(&site, &[], 6, &["led back", "sequence 1", "sequence 2", "--allow-rollback"]).await;
            let target = database().await;
            let taken =
                run(site.client("restore", &site.published(), target.url()).args(["--allow-rollback", "--dry-run"])).await;
            assert_eq!(taken.result()["snapshot"], first.path().to_string());
        },
    )
    .await;

    // A memory that cannot be read must not be taken for an empty one.
    let memory = site.dir.path().join("reader/seen.json");
    let right = std::fs::read(&memory).unwrap();
    std::fs::write(&memory, "{").unwrap();
    refused(&site, &[], 6, &["seen before", memory.to_str().unwrap(), "--allow-rollback"]).await;
    std::fs::write(&memory, right).unwrap();

    let key = Key::Pointer(second.path());
    let mut pointer: Pointer = serde_json::from_slice(&std::fs::read(site.objects().join(key.to_string())).unwrap()).unwrap();
    pointer.expires_at = Some("2026-01-01T00:00:00Z".into());
    let signature = site.keyring().sign(&key, 2, &pointer.to_bytes()).unwrap();
    std::fs::write(site.objects().join(key.signature().to_string()), signature).unwrap();
    std::fs::write(site.objects().join("mainnet/latest.json"), pointer.to_bytes()).unwrap();
    refused(&site, &[], 6, &["2026-01-01", "holds newer ones back"]).await;
    run(site.client("restore", &site.published(), database().await.url()).args(["--dry-run", "--id", &second.snapshot_id]))
        .await
        .result();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_short_and_changed_objects_are_named() {
    let (site, manifest) = published(1_000).await;
    let chunk = manifest.chunks.iter().find(|chunk| chunk.table == "events").unwrap();
    let key = Key::Chunk(chunk.sha256.clone());
    for args in [&[][..], &["--dry-run"]] {
        while_gone(&site, &key, async || refused(&site, args, 5, &[&chunk.sha256, "missing"]).await).await;
    }
    let short = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    while_changed(&site, &key, short, async || refused(&site, &[], 5, &[&chunk.sha256, "damaged", "bytes"]).await).await;
    let flip = |bytes: &mut Vec<u8>| bytes[100] ^= 1;
    while_changed(&site, &key, flip, async || refused(&site, &[], 5, &[&chunk.sha256, "damaged", "sha256"]).await).await;
    let schema = Key::Chunk(manifest.schema.sha256.clone());
    while_changed(&site, &schema, |bytes| bytes[40] ^= 1, async || refused(&site, &[], 5, &[&manifest.schema.sha256]).await)
        .await;

    // Without reading all first, the chunk is refused when its turn comes: none of its rows is there, and it can be mended.
    let target = database().await;
    let pool = target.pool().await;
    while_changed(&site, &key, flip, async || {
        let mut command = site.client("restore", &site.published(), target.url());
        run(command.arg("--check-first=never")).await.error_with(5, &[&chunk.sha256, "damaged"]);
    })
    .await;
    let rows: i64 = sqlx::query_scalar("select count(*) from public.events").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0, "rows of a damaged chunk were loaded");
    assert_eq!(run(&mut site.client("restore", &site.published(), target.url())).await.result()["proved"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_take_it_is_refused_with_what_would_help() {
    let (site, mut manifest) = published(1_000).await;
    let target = database().await;
    let pool = target.pool().await;
    sqlx::raw_sql("create table public.blocks (height bigint); create table public.mine ()").execute(&pool).await.unwrap();
    refused_in(&target, &site, &[], 6, &["not empty", "blocks, mine", "2 in all"]).await;

    let target = database().await;
    let role = format!("poor_{}", target.name());
    let sql = format!("create role {role} login");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&target.pool().await).await.unwrap();
    let poor = target.url().replace("postgres://postgres@", &format!("postgres://{role}@"));
    let ran = run(&mut site.client("restore", &site.published(), &poor)).await;
    ran.error_with(8, &["lacks the right", "grant create on database", "grant create on schema public", &role]);
    assert!(contents(&target.pool().await).await.is_empty());
    let planned = run(site.client("restore", &site.published(), &poor).arg("--dry-run")).await;
    planned.error_with(8, &["lacks the right", "grant create on database"]);

    refused(&site, &["--free-disk", "1000000"], 6, &["too little disk", "1000000 bytes are free", "WAL"]).await;
    refused(&site, &["--tables", "streams"], 2, &["streams", "blocks, transactions, events"]).await;
    refused(&site, &["--heights", "900000..900001"], 2, &["900000..=900001"]).await;
    for (args, word) in [(["--heights", "5"], "100000..200000"), (["--to", "nonsense"], "postgres://")] {
        run(site.client("restore", &site.published(), target.url()).args(args)).await.error_with(2, &[word]);
    }
    let planned = run(site.client("restore", &site.published(), target.url()).args(["--dry-run", "--free-disk=5"])).await;
    let plan = planned.lines().into_iter().find(|line| line["type"] == "result").unwrap()["result"].clone();
    assert_eq!(plan["target"]["refusals"][0]["reason"], "disk");
    assert_eq!(plan["diskBytes"], plan["target"]["refusals"][0]["needed"]);
    planned.error_with(6, &["too little disk"]);

    manifest.producer.postgres = "99.1".into();
    let key = Key::Manifest(manifest.path());
    let signature = site.keyring().sign(&key, manifest.sequence, &manifest.to_bytes()).unwrap();
    std::fs::write(site.objects().join(key.signature().to_string()), signature).unwrap();
    std::fs::write(site.objects().join(key.to_string()), manifest.to_bytes()).unwrap();
    refused(&site, &["--id", &manifest.snapshot_id], 6, &["needs 99 or later"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_taken_back_is_refused_with_the_publishers_words() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    let id = manifest.snapshot_id.as_str();
    service.complete("retract", &json!({ "id": id, "reason": "block 7 lacks an event" })).await;
    // The index of networks names none any more.
    let one = ["--network", "mainnet", "--id", id];
    refused(&site, &one, 6, &["taken back", "block 7 lacks an event", "--allow-rollback"]).await;
    let target = database().await;
    let mut command = site.client("restore", &site.published(), target.url());
    assert_eq!(run(command.args(one).arg("--allow-rollback")).await.result()["proved"], true);
    service.complete("publish", &json!({ "id": id, "reason": "it was another database" })).await;
    service.terminate().await;
    let target = database().await;
    assert_eq!(run(site.client("restore", &site.published(), target.url()).args(["--id", id])).await.result()["proved"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_the_server_does_not_have_is_named_before_anything_is_written() {
    let (site, mut manifest) = published(1_000).await;
    let object = |sha256: &str| site.objects().join(Key::Chunk(sha256.to_owned()).to_string());
    let mut schema = zstd::decode_all(std::fs::read(object(&manifest.schema.sha256)).unwrap().as_slice()).unwrap();
    // Names of one length, so that the table of contents stays what it is.
    let at: Vec<usize> = memchr::memmem::find_iter(&schema, "pg_trgm").collect();
    at.iter().for_each(|at| schema[*at..at + 7].copy_from_slice(b"pg_nope"));
    assert!(!at.is_empty(), "the schema needs no extension");
    let compressed = zstd::encode_all(schema.as_slice(), 3).unwrap();
    manifest.schema.content_sha256 = hex::encode(Sha256::digest(&schema));
    manifest.schema.sha256 = hex::encode(Sha256::digest(&compressed));
    let written = object(&manifest.schema.sha256);
    std::fs::create_dir_all(written.parent().unwrap()).unwrap();
    std::fs::write(written, compressed).unwrap();
    let key = Key::Manifest(manifest.path());
    let signature = site.keyring().sign(&key, manifest.sequence, &manifest.to_bytes()).unwrap();
    std::fs::write(site.objects().join(key.signature().to_string()), signature).unwrap();
    std::fs::write(site.objects().join(key.to_string()), manifest.to_bytes()).unwrap();
    for also in [&[][..], &["--dry-run"]] {
        let args = [&["--id", manifest.snapshot_id.as_str()][..], also].concat();
        refused(&site, &args, 6, &["extension pg_nope", "does not have", "postgresql-contrib"]).await;
    }
}
