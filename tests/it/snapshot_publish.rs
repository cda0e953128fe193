//! What the service answers once a snapshot is published, and what lies in the bucket.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use snapshot::audit::Audit;
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer};

use crate::support::{ServiceProcess, Site, site_with_chain};

fn object(site: &Site, key: &Key) -> Vec<u8> {
    std::fs::read(site.bucket.root().join(key.to_string())).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn status_of(service: &ServiceProcess, path: &str) -> u16 {
    service.get(path).await.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_holds_what_the_manifest_names_and_nothing_else() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let manifest = service.cut().await;

    let archive = object(&site, &Key::Archive(manifest.path()));
    assert_eq!(archive.len() as u64, manifest.size_bytes);
    assert_eq!(format!("sha256:{}", sha256(&archive)), manifest.checksum);
    assert_eq!(manifest.url, format!("https://snapshots.example/{}", Key::Archive(manifest.path())));
    let checksum = String::from_utf8(object(&site, &Key::Checksum(manifest.path()))).unwrap();
    assert_eq!(checksum, format!("{}  {}\n", sha256(&archive), manifest.path().archive_name()));
    for chunk in &manifest.chunks {
        let stored = object(&site, &Key::Chunk(chunk.sha256.clone()));
        assert_eq!((stored.len() as u64, sha256(&stored)), (chunk.bytes, chunk.sha256.clone()));
        let raw = zstd::decode_all(&stored[..]).unwrap();
        assert_eq!((raw.len() as u64, sha256(&raw)), (chunk.raw_bytes, chunk.content_sha256.clone()));
    }
    let pointer: Pointer = serde_json::from_slice(&object(&site, &Key::Latest("mainnet".into()))).unwrap();
    assert_eq!(pointer.manifest_sha256, sha256(&object(&site, &Key::Manifest(manifest.path()))));

    let mut expected: Vec<String> = manifest.chunks.iter().map(|chunk| Key::Chunk(chunk.sha256.clone()).to_string()).collect();
    expected.push(Key::Chunk(manifest.schema.sha256.clone()).to_string());
    let path = manifest.path();
    let signed = [Key::Checksum(path.clone()), Key::Manifest(path.clone()), Key::Pointer(path.clone())];
    expected.extend(signed.iter().flat_map(|key| [key.to_string(), key.signature().to_string()]));
    expected.push(Key::Archive(path).to_string());
    expected.extend(site.keyring().published().unwrap().into_iter().map(|key| Key::PublicKey(key.id).to_string()));
    expected.extend(["latest.json".to_owned(), "mainnet/latest.json".to_owned(), "mainnet/status.json".to_owned()]);
    expected.sort();
    expected.dedup();
    assert_eq!(site.keys(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_says_how_high_the_snapshot_reaches_and_how_clean_it_is() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    let pool = site.database.pool().await;
    let (tip_burn, burn): (i64, i64) = sqlx::query_as(
        "select (select max(burn_block_height) from public.blocks), (select burn_block_height from public.blocks where height = $1)",
    )
    .bind(manifest.block_height.cast_signed())
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(tip_burn - burn >= 6);
    let next_burn: i64 = sqlx::query_scalar("select burn_block_height from public.blocks where height = $1")
        .bind(manifest.block_height.cast_signed() + 1)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(tip_burn - next_burn < 6, "a higher block is final as well");
    // Operations on the Bitcoin side carry no transaction; the node sends 0x00 for them.
    let without_raw_tx: i64 =
        sqlx::query_scalar("select count(*) from public.transactions where raw_tx = '0x00' and block_height <= $1")
            .bind(manifest.block_height.cast_signed())
            .fetch_one(&pool)
            .await
            .unwrap();
    let clean = Audit { placeholder_raw_tx: without_raw_tx.unsigned_abs(), ..Audit::default() };
    assert_eq!(manifest.audit, clean);
    assert_eq!(manifest.tables["blocks"].rows, manifest.block_height + 1);
    assert_eq!(manifest.schema_version.as_deref(), Some("0014_view_table_snapshots"));
    assert_eq!((manifest.version, manifest.sequence, manifest.previous.clone()), (1, 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_find_the_newest_snapshot_under_every_name() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    assert_eq!(status_of(&service, "/snapshots/latest").await, 404);
    assert_eq!(service.json("/snapshots").await, json!({ "data": [], "nextCursor": null, "hasMore": false }));
    let manifest = service.cut().await;

    for path in ["/snapshots/latest", "/snapshots/latest?network=mainnet", "/mainnet/latest", "/api/snapshots/latest"] {
        let answer = service.get(path).await;
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(Manifest::from_bytes(&answer.bytes().await.unwrap()).unwrap(), manifest, "{path}");
        let again =
            reqwest::Client::new().get(format!("{}{path}", service.url)).header("if-none-match", &etag).send().await.unwrap();
        assert_eq!(again.status(), 304, "{path}");
    }
    let one = service.get(&format!("/snapshots/{}", manifest.snapshot_id)).await;
    assert_eq!(one.headers()["cache-control"], "public, max-age=60", "a drill may add its outcome");
    let listed = service.json("/snapshots").await;
    assert_eq!(listed["data"][0]["id"], json!(manifest.snapshot_id));
    assert_eq!(listed["data"][0]["blockHeight"], json!(manifest.block_height));

    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let moved = client.get(format!("{}/mainnet/latest.tar.zst", service.url)).send().await.unwrap();
    assert_eq!(moved.status(), 302);
    assert_eq!(moved.headers()["location"].to_str().unwrap(), manifest.url);
    assert_eq!(moved.headers()["cache-control"], "no-store");
    let digest = manifest.checksum.strip_prefix("sha256:").unwrap();
    let line = service.get("/mainnet/latest.tar.zst.sha256").await.text().await.unwrap();
    assert_eq!(line, format!("{digest}  latest.tar.zst\n"));
    for path in ["/testnet/latest", "/snapshots/1999-01-01", "/snapshots/latest?network=testnet", "/nothing", "/runs/x"] {
        let answer = service.get(path).await;
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["status"], 404, "{path}");
        assert_eq!(problem["error"], problem["detail"], "{path}");
    }
    assert_eq!((status_of(&service, "/livez").await, status_of(&service, "/readyz").await), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_snapshot_of_a_day_gets_its_own_name_and_moves_latest() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let first = service.cut().await;
    let second = service.cut().await;
    assert_eq!(second.snapshot_id, format!("{}.2", first.snapshot_id));
    assert_eq!((second.sequence, second.previous.as_deref()), (2, Some(first.snapshot_id.as_str())));
    let contents = |manifest: &Manifest| manifest.chunks.iter().map(|chunk| chunk.sha256.clone()).collect::<Vec<_>>();
    assert_eq!(contents(&first), contents(&second), "the same rows make the same chunks");
    assert_eq!(first.checksum, second.checksum, "and the same archive");
    let page = service.json("/snapshots?limit=1").await;
    assert_eq!((page["data"][0]["id"].as_str(), page["hasMore"].as_bool()), (Some(second.snapshot_id.as_str()), Some(true)));
    let next = service.json(&format!("/snapshots?limit=1&cursor={}", page["nextCursor"].as_str().unwrap())).await;
    assert_eq!((next["data"][0]["id"].as_str(), next["hasMore"].as_bool()), (Some(first.snapshot_id.as_str()), Some(false)));
}
