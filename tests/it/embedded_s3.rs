//! The embedded S3 server: conditional writes, ranges, restarts; multipart uploads are in `embedded_multipart`.
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::future::join_all;
use snapshot::key::Key;
use snapshot::store::{PATIENCE, Store, StoreConfig, StoreError};
use workers::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};
use workers::embedded::s3::EmbeddedS3;

use crate::embedded_child::Service;
use crate::support::{self, TestBucket};

fn client(bucket: &TestBucket) -> Client {
    client_for(bucket.config())
}

pub(crate) fn client_for(config: &StoreConfig) -> Client {
    let credentials = Credentials::new(&config.access_key, &config.secret_key, None, None, "test");
    let built = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .endpoint_url(config.endpoint.as_deref().unwrap())
        .credentials_provider(credentials)
        .force_path_style(true)
        .build();
    Client::from_conf(built)
}

async fn get(client: &Client, bucket: &TestBucket, key: &str) -> (Vec<u8>, String) {
    let answer = client.get_object().bucket(bucket.name()).key(key).send().await.unwrap();
    let etag = answer.e_tag().unwrap().to_owned();
    (answer.body.collect().await.unwrap().to_vec(), etag)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_writers_that_want_a_key_to_be_new_exactly_one_wins() {
    let bucket = support::bucket().await;
    let client = client(&bucket);
    for round in 0..5 {
        let key = format!("chunks/{round}");
        let put = |writer: usize| {
            let body = ByteStream::from(vec![u8::try_from(writer).unwrap(); 300_000]);
            let request = client.put_object().bucket(bucket.name()).key(&key).if_none_match("*").body(body);
            async move { (writer, request.send().await) }
        };
        let answers = join_all((0..20).map(put)).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, answer)| answer.is_ok());
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|(_, answer)| answer.as_ref().unwrap_err().code() == Some("PreconditionFailed")));
        let (bytes, _) = get(&client, &bucket, &key).await;
        assert!(bytes.len() == 300_000 && bytes.iter().all(|byte| usize::from(*byte) == won[0].0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_and_swap_by_etag_loses_no_update_of_twenty_writers() {
    let bucket = support::bucket().await;
    let client = client(&bucket);
    client.put_object().bucket(bucket.name()).key("latest.json").body(ByteStream::from_static(b"")).send().await.unwrap();
    let append = |writer: u8| {
        let (client, bucket) = (&client, &bucket);
        async move {
            loop {
                let (mut bytes, etag) = get(client, bucket, "latest.json").await;
                bytes.push(writer);
                let put = client.put_object().bucket(bucket.name()).key("latest.json").if_match(etag);
                match put.body(ByteStream::from(bytes)).send().await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error.code(), Some("PreconditionFailed"), "{error:?}"),
                }
            }
        }
    };
    join_all((0..20).map(append)).await;
    let (bytes, _) = get(&client, &bucket, "latest.json").await;
    assert_eq!((bytes.len(), bytes.iter().collect::<HashSet<_>>().len()), (20, 20));
}

#[tokio::test]
async fn ranges_answer_the_bytes_asked_for_and_refuse_those_beyond_the_end() {
    let bucket = support::bucket().await;
    let client = client(&bucket);
    let body: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    client.put_object().bucket(bucket.name()).key("a/b").body(body.clone().into()).send().await.unwrap();
    for (range, expected) in [
        ("bytes=0-0", &body[..1]),
        ("bytes=300000-799999", &body[300_000..800_000]),
        ("bytes=999990-", &body[999_990..]),
        ("bytes=-7", &body[999_993..]),
    ] {
        let answer = client.get_object().bucket(bucket.name()).key("a/b").range(range).send().await.unwrap();
        assert_eq!(answer.content_length(), Some(expected.len() as i64));
        assert!(answer.content_range().is_some());
        assert!(answer.body.collect().await.unwrap().to_vec() == expected, "{range}");
    }
    let beyond = client.get_object().bucket(bucket.name()).key("a/b").range("bytes=1000000-").send().await;
    assert_eq!(beyond.unwrap_err().code(), Some("InvalidRange"));
    let directory = client.get_object().bucket(bucket.name()).key("a").send().await;
    assert_eq!(directory.unwrap_err().code(), Some("NoSuchKey"));
    assert!(client.head_object().bucket(bucket.name()).key("a").send().await.is_err());
}

#[tokio::test]
async fn a_body_that_does_not_match_its_digest_never_becomes_visible() {
    let bucket = support::bucket().await;
    let client = client(&bucket);
    let wrong = client
        .put_object()
        .bucket(bucket.name())
        .key("k")
        .checksum_sha256("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
        .body(ByteStream::from_static(b"not empty"))
        .send()
        .await;
    assert!(wrong.is_err());
    let gone = client.get_object().bucket(bucket.name()).key("k").send().await;
    assert_eq!(gone.unwrap_err().code(), Some("NoSuchKey"));
    assert_eq!(std::fs::read_dir(bucket.root()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_restart_keeps_credentials_and_port_and_takes_another_port_if_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let start = || EmbeddedS3::start(dir.path(), "snapshots", Durability::Durable);
    let first = start().await.unwrap();
    let identity = (first.endpoint(), first.access_key().to_owned(), first.secret_key().to_owned());
    assert_eq!((identity.1.len(), identity.2.len()), (20, 40));
    let mode = std::fs::metadata(dir.path().join("identity.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    first.stop().await;
    let second = start().await.unwrap();
    assert_eq!((second.endpoint(), second.access_key().to_owned(), second.secret_key().to_owned()), identity);
    let port = second.endpoint().rsplit(':').next().unwrap().parse::<u16>().unwrap();
    second.stop().await;
    let squatter = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let third = start().await.unwrap();
    assert!(third.endpoint() != identity.0 && third.access_key() == identity.1);
    third.stop().await;
    drop(squatter);
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_put_leaves_nothing_under_its_key() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let service = Service::start(Some(dir.path())).await;
    let text = |name: &str| service.said[name].as_str().unwrap().to_owned();
    let config = StoreConfig {
        endpoint: Some(text("endpoint")),
        bucket: "snapshots".into(),
        region: "us-east-1".into(),
        access_key: text("accessKey"),
        secret_key: text("secretKey"),
        patience: PATIENCE,
    };
    let client = client_for(&config);
    client.put_object().bucket("snapshots").key("before").body(ByteStream::from_static(b"whole")).send().await.unwrap();
    let hour = PresigningConfig::expires_in(Duration::from_secs(3600)).unwrap();
    let put = client.put_object().bucket("snapshots").key("half").presigned(hour).await.unwrap();
    let half = futures::stream::once(async { Ok::<_, std::io::Error>(vec![7_u8; 5_000_000]) });
    let body = reqwest::Body::wrap_stream(futures::StreamExt::chain(half, futures::stream::pending()));
    let request = reqwest::Client::new().put(put.uri()).header("content-length", 10_000_000).body(body).send();
    let sending = tokio::spawn(request);
    let root = dir.path().join("s3/objects");
    let written = || {
        let sizes = std::fs::read_dir(&root).unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            entry.file_name().to_string_lossy().starts_with(".tmp.").then(|| entry.metadata().map_or(0, |found| found.len()))
        });
        sizes.max().unwrap_or(0)
    };
    support::wait_until(Duration::from_secs(20), "half of the body is written", async || written() > 4_000_000).await;
    service.kill().await;
    sending.abort();
    assert!(!root.join("snapshots/half").exists());

    let server = EmbeddedS3::start(&dir.path().join("s3"), "snapshots", Durability::Durable).await.unwrap();
    let client = client_for(&StoreConfig { endpoint: Some(server.endpoint()), ..config });
    let gone = client.get_object().bucket("snapshots").key("half").send().await;
    assert_eq!(gone.unwrap_err().code(), Some("NoSuchKey"));
    let kept = client.get_object().bucket("snapshots").key("before").send().await.unwrap();
    assert_eq!(kept.body.collect().await.unwrap().to_vec(), b"whole");
    assert_eq!(written(), 0);
    server.stop().await;
    let postgres = EmbeddedPostgres::start(PostgresOptions::new(dir.path().join("postgres"))).await.unwrap();
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_an_error_with_words_and_leaves_room_for_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=10m", "tmpfs"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: cannot mount a small disk");
        return;
    }
    let server = EmbeddedS3::start(dir.path(), "snapshots", Durability::Durable).await.unwrap();
    let client = client_for(&StoreConfig {
        endpoint: Some(server.endpoint()),
        bucket: "snapshots".into(),
        region: server.region().into(),
        access_key: server.access_key().into(),
        secret_key: server.secret_key().into(),
        patience: PATIENCE,
    });
    let put =
        |key: &'static str, bytes: usize| client.put_object().bucket("snapshots").key(key).body(vec![1; bytes].into()).send();
    let error = put("large", 16 << 20).await.unwrap_err();
    assert_eq!(error.raw_response().map(|answer| answer.status().as_u16()), Some(507));
    assert!(error.message().is_some_and(|message| message.contains("full")), "{error:?}");
    assert!(put("small", 1 << 20).await.is_ok());
    assert!(!server.root().join("snapshots/large").exists());
    server.stop().await;
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
}

#[tokio::test]
async fn an_object_that_was_replaced_meanwhile_is_not_taken_away() {
    let bucket = support::bucket().await;
    let store = Store::new(bucket.config());
    let key = Key::Latest("mainnet".into());
    let first = store.put_if_match(&key, Bytes::from_static(b"1"), None).await.unwrap();
    let second = store.put_if_match(&key, Bytes::from_static(b"2"), Some(&first)).await.unwrap();
    let lost = store.delete_if_match(&key, &first).await;
    assert!(matches!(lost, Err(StoreError::Precondition { .. })), "{lost:?}");
    assert_eq!(store.get(&key).await.unwrap().unwrap().0, "2");
    store.delete_if_match(&key, &second).await.unwrap();
    assert!(store.get(&key).await.unwrap().is_none());
    let gone = store.delete_if_match(&key, &second).await;
    assert!(matches!(gone, Err(StoreError::Precondition { .. }) | Ok(())), "{gone:?}");
}
