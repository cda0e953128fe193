//! With an embedded bucket the service itself serves snapshots and chunks, to anybody, and nothing else of the bucket.

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use snapshot::key::Key;
use snapshot::manifest::Manifest;
use tokio::process::Command;

use crate::support::{ServiceProcess, Site, cut, database, grow, growing_site, run, site_with_chain};

async fn published() -> (Site, ServiceProcess, Manifest) {
    let site = site_with_chain(1_000).await.with_embedded_bucket();
    let service = site.serve().await;
    let manifest = service.cut().await;
    (site, service, manifest)
}

async fn ask(service: &ServiceProcess, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", service.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn stored(site: &Site, key: &Key) -> Vec<u8> {
    std::fs::read(site.objects().join(key.to_string())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_follows_latest_to_the_dated_object_and_sha256sum_agrees() {
    let (site, service, manifest) = published().await;
    let user = tempfile::tempdir().unwrap();
    let sh = async |script: String| {
        let ran = run(Command::new("sh").args(["-c", &script]).current_dir(user.path())).await;
        assert_eq!(ran.code, Some(0), "{script}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    };
    let (url, id, archive) = (&service.url, &manifest.snapshot_id, manifest.path().archive_name());
    let followed = sh(format!("curl -sSfLO -w '%{{url_effective}}' {url}/mainnet/latest.tar.zst")).await;
    assert_eq!(followed, format!("{url}/mainnet/{id}/{archive}"));
    sh(format!("curl -sSfLO {url}/mainnet/latest.tar.zst.sha256 && sha256sum -c latest.tar.zst.sha256")).await;
    sh(format!("curl -sSfLO {url}/mainnet/{id}/{archive} && curl -sSfLO {url}/mainnet/{id}/snapshot.sha256 && sha256sum -c snapshot.sha256")).await;
    sh("tar --zstd -xf latest.tar.zst && test -f snapshot/toc.dat".into()).await;
    assert_eq!(manifest.url, format!("{url}/mainnet/{id}/{archive}"), "what the manifest says is where it is");
    assert_eq!(std::fs::read(user.path().join(&archive)).unwrap(), stored(&site, &Key::Archive(manifest.path())));
    let half = manifest.size_bytes / 2;
    sh(format!("head -c {half} {archive} > part && curl -sSf -C - -o part {url}/mainnet/{id}/{archive} && cmp part {archive}"))
        .await;
}

/// The commands of the README that download an archive.
fn commands_of_the_readme() -> Vec<String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let block = readme.split("## Restore one").nth(1).unwrap().split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let lines: Vec<String> = block.lines().map(str::to_owned).collect();
    assert!(lines.len() == 5 && lines[0].starts_with("ARCHIVE=") && lines[4].starts_with("pg_restore"), "{lines:?}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_as_the_readme_types_it_survives_that_latest_moves_at_any_moment() {
    let site = growing_site(400, 249).await.with_embedded_bucket();
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, serde_json::json!({})).await;
    let user = tempfile::tempdir().unwrap();
    let script = async |script: &str, archive: &str| {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(user.path());
        let ran = run(command.env("SNAPSHOTS", &service.url).env("ARCHIVE", archive)).await;
        assert_eq!(ran.code, Some(0), "{script}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    };
    let lines = commands_of_the_readme();
    let archive = script(&format!("{}\necho -n $ARCHIVE", lines[0]), "").await;
    assert_eq!(archive, first.url);
    grow(&pool, 299).await;
    cut(&service, &pool, serde_json::json!({})).await;
    // Half of it came, then the line broke, and `latest` moved once more.
    let half = first.size_bytes / 2;
    script(&format!("{} -r 0-{half}", lines[1].split('#').next().unwrap().trim()), &archive).await;
    grow(&pool, 399).await;
    let (third, _) = cut(&service, &pool, serde_json::json!({})).await;
    assert_ne!(third.checksum, first.checksum);
    script(&format!("{} -C -", lines[1].split('#').next().unwrap().trim()), &archive).await;
    for line in &lines[2..4] {
        script(line, &archive).await;
    }
    assert!(user.path().join("snapshot/toc.dat").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_restores_from_the_service_hears_that_a_snapshot_was_taken_back() {
    let (site, service, manifest) = published().await;
    let notice = format!("/{}", Key::Retracted(manifest.path()));
    assert_eq!(service.get(&notice).await.status(), 404);
    service.complete("retract", &serde_json::json!({ "id": manifest.snapshot_id, "reason": "block 7 lacks an event" })).await;
    let said = service.json(&notice).await;
    assert_eq!((&said["reason"], &said["id"]), (&"block 7 lacks an event".into(), &manifest.snapshot_id.clone().into()));
    let target = database().await;
    let mut command = site.client("restore", &service.url, target.url());
    command.args(["--network", "mainnet", "--id", &manifest.snapshot_id]);
    run(&mut command).await.error_with(6, &["taken back", "block 7 lacks an event"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_public_address_manifests_name_that_and_objects_stay_open_to_all() {
    let site = site_with_chain(1_000).await.with_embedded_bucket();
    let service = site.serve_with(&[("PUBLIC_BASE_URL", "https://snapshots.example/")]).await;
    let manifest = service.cut().await;
    let key = Key::Archive(manifest.path()).to_string();
    assert_eq!(manifest.url, format!("https://snapshots.example/{key}"));
    let proxied = [("host", "snapshots.example"), ("x-forwarded-for", "192.0.2.1")];
    for path in [format!("/{key}"), "/mainnet/latest".into(), "/mainnet/status.json".into(), "/snapshots".into()] {
        assert_eq!(ask(&service, Method::GET, &path, &proxied).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_preconditions_are_those_of_the_rfc() {
    let (site, service, manifest) = published().await;
    let keys = [Key::Archive(manifest.path()), Key::Manifest(manifest.path()), Key::Chunk(manifest.chunks[0].sha256.clone())];
    for key in keys {
        let (path, whole) = (format!("/{key}"), stored(&site, &key));
        let end = whole.len();
        let answer = ask(&service, Method::HEAD, &path, &[]).await;
        assert_eq!((answer.status(), header(&answer, "content-length")), (StatusCode::OK, end.to_string().as_str()), "{path}");
        assert!(header(&answer, "cache-control").contains("immutable") && header(&answer, "accept-ranges") == "bytes");
        let etag = header(&answer, "etag").to_owned();
        assert!(etag.starts_with('"'), "{etag}");
        assert!(answer.bytes().await.unwrap().is_empty());

        let parts =
            [("bytes=0-99", 0..100), ("bytes=7-", 7..end), ("bytes=-10", end - 10..end), ("bytes=100-99999999", 100..end)];
        for (range, expected) in parts {
            let answer = ask(&service, Method::GET, &path, &[("range", range), ("if-match", &etag)]).await;
            let said = format!("bytes {}-{}/{end}", expected.start, expected.end - 1);
            assert_eq!((answer.status(), header(&answer, "content-range")), (StatusCode::PARTIAL_CONTENT, said.as_str()));
            assert_eq!(header(&answer, "content-length"), expected.len().to_string());
            assert!(answer.bytes().await.unwrap() == whole[expected], "{range} of {path}");
        }
        let beyond = format!("bytes={end}-");
        let refusals: [(&[(&str, &str)], u16); 4] = [
            (&[("range", &beyond)], 416),
            (&[("range", "bytes=5-"), ("if-match", "\"another\"")], 412),
            (&[("if-none-match", &etag)], 304),
            (&[("range", "bytes=5-"), ("if-range", "\"another\"")], 200),
        ];
        for (headers, status) in refusals {
            let answer = ask(&service, Method::GET, &path, headers).await;
            assert_eq!(answer.status().as_u16(), status, "{headers:?}");
            match status {
                416 => assert_eq!(header(&answer, "content-range"), format!("bytes */{end}")),
                304 => assert_eq!(header(&answer, "etag"), etag),
                _ => {}
            }
            let body = answer.bytes().await.unwrap();
            match status {
                200 => assert!(body == whole),
                304 => assert!(body.is_empty()),
                _ => assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["status"], status),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_published_objects_can_be_read_and_nothing_can_be_written() {
    let (site, service, manifest) = published().await;
    let (id, chunk) = (&manifest.snapshot_id, Key::Chunk(manifest.chunks[0].sha256.clone()).to_string());
    let root = site.objects();
    // What somebody else might keep in the same bucket, or beside it.
    for private in ["backups/2026/dump.sql", "mainnet/2026/notes.txt", "chunks/aa/notes.txt", ".hidden/a/manifest.json"] {
        std::fs::create_dir_all(root.join(private).parent().unwrap()).unwrap();
        std::fs::write(root.join(private), "private").unwrap();
    }
    let archive = format!("snapshot-{id}.tar.zst");
    let hidden = [
        "/mainnet".into(),
        "/mainnet/".into(),
        "/chunks".into(),
        "/chunks/".into(),
        format!("/mainnet/{id}"),
        format!("/mainnet/{id}/"),
        format!("/{}", &chunk[..9]),
        "/backups/2026/dump.sql".into(),
        "/mainnet/2026/notes.txt".into(),
        "/chunks/aa/notes.txt".into(),
        "/.hidden/a/manifest.json".into(),
        format!("/mainnet/{id}/..%2f..%2flatest.json"),
        format!("/mainnet/%2e%2e/{archive}"),
        format!("/%2e%2e/{id}/{archive}"),
        format!("/..%2fsnapshots%2fmainnet/{id}/{archive}"),
        format!("/mainnet%2f{id}/{archive}"),
        format!("/mainnet/{id}/%2e{archive}"),
        format!("/mainnet/{id}/{archive}%00"),
        format!("/mainnet/{id}%00/manifest.json"),
        "/%00/latest".into(),
        "/%2e%2e/latest.json".into(),
        "/s3/identity.json".into(),
        "/service.json".into(),
    ];
    for path in &hidden {
        let answer = raw(&service, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("application/problem+json") && !answer.contains("private"), "{path}: {answer}");
    }
    let before = site.keys();
    for path in [format!("/mainnet/{id}/{archive}"), format!("/{chunk}"), "/latest.json".into(), "/mainnet/latest".into()] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let answer = ask(&service, method.clone(), &path, &[]).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (405, "application/problem+json"));
            assert!(header(&answer, "allow").contains("GET"), "{method} {path}");
        }
    }
    assert_eq!(site.keys(), before);
}

/// Sends a path exactly as it is spelled, which HTTP clients do not: they resolve dots first.
async fn raw(service: &ServiceProcess, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = service.url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
