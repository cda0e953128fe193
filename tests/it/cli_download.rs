//! `download`: complete, resumed where it stopped, checked.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snapshot::key::Key;
use snapshot::manifest::Manifest;

use crate::support::{
    Asked, Fault, FaultProxy, FlakyServer, Proxy, Ran, ServiceProcess, Site, bare_command, run, site_with_chain, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn published() -> (Site, ServiceProcess, Manifest, Vec<u8>) {
    let site = site_with_chain(1_000).await.with_embedded_bucket();
    let service = site.serve().await;
    let manifest = service.cut().await;
    let archive = std::fs::read(site.objects().join(Key::Archive(manifest.path()).to_string())).unwrap();
    (site, service, manifest, archive)
}

async fn download(url: &str, dir: &Path) -> Ran {
    run(bare_command(&["download", "--json", "--url", url, "--output-dir"]).arg(dir)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_lands_whole_where_it_was_asked_to_and_is_not_fetched_twice() {
    let (site, service, manifest, archive) = published().await;
    let user = tempfile::tempdir().unwrap();
    let deep = user.path().join("a/b");
    let result = download(&service.url, &deep).await.result();
    let path = PathBuf::from(result["path"].as_str().unwrap());
    assert_eq!(path, deep.join(manifest.path().archive_name()));
    assert_eq!((result["checksum"].as_str(), std::fs::read(&path).unwrap()), (Some(manifest.checksum.as_str()), archive.clone()));
    assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1, "nothing else is left");

    let proxy = Proxy::start(&service.url, u64::MAX).await;
    download(&proxy.url, &deep).await.result();
    assert!(proxy.passed() < manifest.size_bytes / 2, "the archive was fetched again");
    std::fs::write(&path, "something else").unwrap();
    download(&service.url, &deep).await.error_with(5, &["damaged", "delete it"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"something else", "a file of the user was changed");

    let dir = user.path().join("c");
    let mut command = bare_command(&["download", &manifest.snapshot_id, "-o"]);
    let said = run(command.arg(&dir).args(["--data-dir", site.dir.path().to_str().unwrap()])).await;
    assert!(said.code == Some(0) && said.stdout.contains("tar --zstd -xf"), "{}{}", said.stdout, said.stderr);
    run(bare_command(&["download", "1999-01-01", "--json", "--url", &service.url])).await.error_with(4, &["1999-01-01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_comes_from_wherever_it_is_published_once_its_manifest_is_believed() {
    let (site, service, manifest, archive) = published().await;
    service.terminate().await;
    let bucket = FlakyServer::start(site.objects()).await;
    let dir = site.dir.path().join("from");
    let mut command = bare_command(&["download", "--json", "--from", &bucket.url, "--output-dir"]);
    command.arg(&dir).env("SNAPSHOTS_DATA_DIR", site.dir.path().join("reader"));
    run(&mut command).await.error_with(6, &["--public-key"]);
    let result = run(command.env("SNAPSHOTS_PUBLIC_KEY", site.public_keys())).await.result();
    assert_eq!(result["checksum"], manifest.checksum);
    assert!(std::fs::read(dir.join(manifest.path().archive_name())).unwrap() == archive);
    let place = site.published();
    run(&mut bare_command(&["download", "--json", "--from", &place])).await.error_with(2, &["--chunks"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_mirrored_once_and_restored_from_the_directory() {
    let (site, service, manifest, _) = published().await;
    let dir = site.dir.path().join("mirror");
    let mirror = async |url: &str| {
        let keys = site.keyring().published().unwrap();
        let mut command = bare_command(&["download", "--json", "--chunks", "--url", url, "--data-dir"]);
        command
            .arg(site.dir.path().join("reader"))
            .arg("--output-dir")
            .arg(&dir)
            .env("SNAPSHOTS_PUBLIC_KEY", &keys[0].public_key);
        run(command).await
    };
    let first = mirror(&service.url).await.result();
    assert_eq!(first["blockHeight"], manifest.block_height);
    let lost = dir.join(Key::Chunk(manifest.chunks[0].sha256.clone()).to_string());
    std::fs::write(&lost, "half").unwrap();
    let second = mirror(&service.url).await.result();
    let fetched = |result: &serde_json::Value| result["fetchedBytes"].as_u64().unwrap();
    assert!(fetched(&second) < fetched(&first) / 2 && std::fs::metadata(&lost).unwrap().len() == manifest.chunks[0].bytes);
    service.terminate().await;
    let target = crate::support::database().await;
    let restored = run(&mut site.client("restore", dir.to_str().unwrap(), target.url())).await.result();
    assert_eq!((&restored["proved"], &restored["snapshot"]), (&true.into(), &manifest.path().to_string().into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_stopped_fetches_only_the_rest() {
    let (_site, service, manifest, archive) = published().await;
    let user = tempfile::tempdir().unwrap();
    let part = user.path().join(format!("{}.part", manifest.path().archive_name()));
    let have = archive.len() * 9 / 10;
    std::fs::write(&part, &archive[..have]).unwrap();
    let proxy = Proxy::start(&service.url, u64::MAX).await;
    let manifest_bytes = reqwest::get(format!("{}/snapshots/latest", service.url)).await.unwrap().bytes().await.unwrap().len();
    let result = download(&proxy.url, user.path()).await.result();
    let (rest, passed) = (archive.len() - have, usize::try_from(proxy.passed()).unwrap());
    assert!((rest + manifest_bytes..rest + manifest_bytes + 4_000).contains(&passed), "{passed} bytes for a rest of {rest}");
    assert!(std::fs::read(result["path"].as_str().unwrap()).unwrap() == archive);
    assert!(!part.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_download_ends_with_130_keeps_what_arrived_and_goes_on_from_there() {
    let (_site, service, manifest, archive) = published().await;
    let user = tempfile::tempdir().unwrap();
    let part = user.path().join(format!("{}.part", manifest.path().archive_name()));
    // Half arrives, and the rest is waited for.
    let stuck = |asked: &Asked| match (asked.path.ends_with(".tar.zst"), asked.before) {
        (true, 0) => Some(Fault::CutAnswer),
        (true, _) => Some(Fault::Hold),
        (false, _) => None,
    };
    let line = FaultProxy::start(&service.url, stuck).await;
    let mut command = bare_command(&["download", "--json", "--url", &line.url, "--output-dir"]);
    let child = command.arg(user.path()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until(PATIENCE, "it waits for the rest", async || line.faults().len() == 2).await;
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the command does not end").unwrap();
    let last: serde_json::Value =
        serde_json::from_slice(ended.stdout.split(|byte| *byte == b'\n').rev().nth(1).unwrap()).unwrap();
    assert_eq!((ended.status.code(), &last["code"]), (Some(130), &130.into()), "{last}");
    assert!(last["hint"].as_str().unwrap().contains("run the same command again"), "{last}");
    let arrived = std::fs::metadata(&part).unwrap().len();
    assert!(arrived > 0 && arrived < manifest.size_bytes);

    let proxy = Proxy::start(&service.url, u64::MAX).await;
    let result = download(&proxy.url, user.path()).await.result();
    assert!(std::fs::read(result["path"].as_str().unwrap()).unwrap() == archive);
    let again = manifest.size_bytes - arrived;
    assert!(proxy.passed() < again + manifest.size_bytes / 4, "what had arrived was fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_again_and_again_still_ends_in_the_whole_archive() {
    let (_site, service, manifest, archive) = published().await;
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&service.url, (manifest.size_bytes / 3).max(20_000)).await;
    let result = download(&proxy.url, user.path()).await.result();
    assert!(std::fs::read(result["path"].as_str().unwrap()).unwrap() == archive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_beginning_is_found_before_the_file_gets_its_name() {
    let (_site, service, manifest, archive) = published().await;
    let user = tempfile::tempdir().unwrap();
    let name = manifest.path().archive_name();
    let part = user.path().join(format!("{name}.part"));
    let mut damaged = archive[..archive.len() / 2].to_vec();
    damaged[100] ^= 1;
    let mut long = archive.clone();
    long.push(0);
    for beginning in [damaged, long] {
        std::fs::write(&part, beginning).unwrap();
        download(&service.url, user.path()).await.error_with(5, &["damaged", "delete it and download again"]);
        assert!(!user.path().join(&name).exists());
    }
    std::fs::remove_file(&part).unwrap();
    download(&service.url, user.path()).await.result();
}
