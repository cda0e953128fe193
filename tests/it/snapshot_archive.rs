//! Archives that are not stored: the service makes them of chunks as they are read, byte for byte what would have been stored.

use reqwest::StatusCode;
use serde_json::json;
use sha2::{Digest, Sha256};
use snapshot::key::Key;
use snapshot::manifest::{Archive, Manifest};

use crate::support::{ServiceProcess, Site, bare_command, cut_unpromoted, run, site_with_chain};

fn stored(site: &Site, manifest: &Manifest) -> Option<Vec<u8>> {
    std::fs::read(site.objects().join(Key::Archive(manifest.path()).to_string())).ok()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn read(service: &ServiceProcess, path: &str, header: (&str, &str)) -> (StatusCode, Vec<u8>, reqwest::header::HeaderMap) {
    let request = reqwest::Client::new().get(format!("{}{path}", service.url)).header(header.0, header.1);
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    (status, answer.bytes().await.unwrap().to_vec(), headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_made_on_request_is_byte_for_byte_the_stored_one() {
    let site = site_with_chain(1_000).await.with_embedded_bucket();
    let service = site.serve().await;
    let first = service.cut().await;
    service.terminate().await;
    let service = site.serve_with(&[("SNAPSHOTS_ARCHIVE", "on_request"), ("SNAPSHOTS_DRILL", "off")]).await;
    let second = service.cut().await;
    assert_eq!((first.archive, second.archive), (Archive::Stored, Archive::OnRequest));
    assert_eq!((&first.checksum, first.size_bytes), (&second.checksum, second.size_bytes), "the same rows");
    assert_eq!((stored(&site, &second), site.keys().iter().any(|key| key.contains(".2.tar"))), (None, false));
    let whole = stored(&site, &first).unwrap();

    let path = format!("/{}", Key::Archive(second.path()));
    let length = whole.len();
    let (status, body, headers) = read(&service, &path, ("accept", "*/*")).await;
    assert_eq!((status, digest(&body)), (StatusCode::OK, second.checksum.clone()));
    assert!(body == whole);
    let etag = headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(
        (headers["content-length"].to_str().unwrap(), &headers["content-type"]),
        (length.to_string().as_str(), &"application/zstd".parse().unwrap())
    );
    let head = reqwest::Client::new().head(format!("{}{path}", service.url)).send().await.unwrap();
    assert_eq!(
        (head.status(), head.headers()["content-length"].to_str().unwrap()),
        (StatusCode::OK, length.to_string().as_str())
    );
    for (from, to) in [(0, 0), (1, 700), (length / 3, length / 2), (length - 5, length - 1)] {
        let (status, part, headers) = read(&service, &path, ("range", &format!("bytes={from}-{to}"))).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(headers["content-range"].to_str().unwrap(), format!("bytes {from}-{to}/{length}"));
        assert!(part == whole[from..=to], "{from}-{to}");
    }
    assert_eq!(read(&service, &path, ("range", &format!("bytes={length}-"))).await.0, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(read(&service, &path, ("if-none-match", &etag)).await.0, StatusCode::NOT_MODIFIED);
    assert_eq!(read(&service, &path, ("if-match", "\"other\"")).await.0, StatusCode::PRECONDITION_FAILED);

    let (_, body, _) = read(&service, "/mainnet/latest.tar.zst", ("accept", "*/*")).await;
    assert!(body == whole, "the lasting name leads to it");
    let user = tempfile::tempdir().unwrap();
    let downloaded = run(bare_command(&["download", "--json", "--url", &service.url, "-o"]).arg(user.path())).await.result();
    assert_eq!(downloaded["checksum"], json!(second.checksum));
    for from in [service.url.clone(), site.published()] {
        let verified = run(site.client("verify", &from, site.database.url())).await.result();
        assert_eq!(verified["proved"], true, "{from}: {verified:#}");
    }
    let lost = second.chunks.iter().max_by_key(|chunk| chunk.bytes).unwrap();
    std::fs::remove_file(site.objects().join(Key::Chunk(lost.sha256.clone()).to_string())).unwrap();
    let broken = reqwest::get(format!("{}{path}", service.url)).await.unwrap().bytes().await;
    assert!(broken.is_err(), "half an archive is not taken for a whole one");
    let other = format!("/mainnet/{0}/snapshot-{0}.tar.zst", "1999-01-01");
    assert_eq!(read(&service, &other, ("accept", "*/*")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_bucket_of_ones_own_the_first_archive_of_a_week_is_stored_and_the_service_makes_the_others() {
    let site = site_with_chain(1_000).await;
    let unsaid =
        site.command().args(["serve", "--json", "--archive", "weekly", "--listen", "127.0.0.1:0"]).output().await.unwrap();
    let said = String::from_utf8(unsaid.stdout).unwrap();
    assert!(unsaid.status.code() == Some(2) && said.contains("PUBLIC_SERVICE_URL"), "{said}");
    let env = [("SNAPSHOTS_ARCHIVE", "weekly"), ("PUBLIC_SERVICE_URL", "https://service.example/")];
    let service = site.serve_with(&env).await;
    let first = service.cut().await;
    let second = service.cut().await;
    assert_eq!((first.archive, second.archive), (Archive::Stored, Archive::OnRequest));
    assert_eq!(first.url, format!("https://snapshots.example/{}", Key::Archive(first.path())));
    assert_eq!(second.url, format!("https://service.example/{}", Key::Archive(second.path())));
    let whole = stored(&site, &first).unwrap();
    assert_eq!(stored(&site, &second), None);
    let (_, body, _) = read(&service, "/mainnet/latest.tar.zst", ("accept", "*/*")).await;
    assert!(body == whole);
    let listed = service.json("/snapshots").await;
    assert_eq!((&listed["data"][0]["archive"], &listed["data"][1]["archive"]), (&json!("on_request"), &json!("stored")));
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let moved = client.get(format!("{}/{}", service.url, Key::Archive(first.path()))).send().await.unwrap();
    assert_eq!((moved.status(), moved.headers()["location"].to_str().unwrap()), (StatusCode::FOUND, first.url.as_str()));
    let sums = Key::Checksum(second.path());
    let moved = client.get(format!("{}/{sums}", service.url)).send().await.unwrap();
    let there = format!("https://snapshots.example/{sums}");
    assert_eq!(moved.headers()["location"].to_str().unwrap(), there, "beside the archive that is made here");

    // A new week begins: its first archive is stored again.
    let pool = site.database.pool().await;
    sqlx::query("update snapshots.snapshot set created_at = created_at - interval '8 days'").execute(&pool).await.unwrap();
    // Nor does one count that readers were never sent to.
    let unpromoted = cut_unpromoted(&service, &pool).await;
    assert_eq!(service.json(&format!("/snapshots/{unpromoted}")).await["archive"], json!("stored"));
    assert_eq!(service.cut().await.archive, Archive::Stored);
    assert_eq!(service.cut().await.archive, Archive::OnRequest);
}
