//! The embedded S3 server: uploads in parts, which are joined while they arrive.
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use snapshot::store::{PATIENCE, StoreConfig};
use workers::embedded::postgres::Durability;
use workers::embedded::s3::EmbeddedS3;

use crate::embedded_s3::client_for;
use crate::support::{self, wait_until};

const KEY: &str = "archive";

/// An upload under way.
struct Upload {
    client: Client,
    bucket: String,
    id: String,
}

impl Upload {
    async fn begin(config: &StoreConfig) -> Self {
        let (client, bucket) = (client_for(config), config.bucket.clone());
        let begin = client.create_multipart_upload().bucket(&bucket).key(KEY).content_type("application/zstd");
        let id = begin.send().await.unwrap().upload_id().unwrap().to_owned();
        Self { client, bucket, id }
    }

    async fn part(&self, number: i32, body: Vec<u8>) -> CompletedPart {
        let part = self.client.upload_part().bucket(&self.bucket).key(KEY).upload_id(&self.id).part_number(number);
        let etag = part.body(body.into()).send().await.unwrap().e_tag().unwrap().to_owned();
        CompletedPart::builder().part_number(number).e_tag(etag).build()
    }

    /// The whole's `ETag`, or why there is none.
    async fn complete(&self, parts: &[&CompletedPart]) -> Result<String, Option<String>> {
        let parts = parts.iter().map(|part| (*part).clone()).collect();
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.bucket).key(KEY).upload_id(&self.id);
        let answer = complete.multipart_upload(all).send().await;
        answer.map(|done| done.e_tag().unwrap().to_owned()).map_err(|error| error.code().map(str::to_owned))
    }

    async fn object(&self) -> Vec<u8> {
        let whole = self.client.get_object().bucket(&self.bucket).key(KEY).send().await.unwrap();
        whole.body.collect().await.unwrap().to_vec()
    }
}

/// A part long enough to stand before others.
fn long(byte: u8) -> Vec<u8> {
    vec![byte; 6 << 20]
}

fn refused(code: &str) -> Result<String, Option<String>> {
    Err(Some(code.to_owned()))
}

#[tokio::test]
async fn a_multipart_upload_is_listed_refuses_foreign_parts_and_joins_in_order() {
    let bucket = support::bucket().await;
    let upload = Upload::begin(bucket.config()).await;
    let parts = [upload.part(1, long(1)).await, upload.part(2, long(2)).await, upload.part(3, vec![3; 100]).await];
    let list = upload.client.list_parts().bucket(bucket.name()).key(KEY).upload_id(&upload.id);
    let listed = list.send().await.unwrap();
    let seen = |part: &aws_sdk_s3::types::Part| (part.part_number(), part.e_tag().map(str::to_owned));
    let expected: Vec<_> = parts.iter().map(|part| (part.part_number(), part.e_tag().map(str::to_owned))).collect();
    assert_eq!(listed.parts().iter().map(seen).collect::<Vec<_>>(), expected);
    let foreign = CompletedPart::builder().part_number(2).e_tag(parts[0].e_tag().unwrap()).build();
    assert_eq!(upload.complete(&[&parts[0], &foreign, &parts[2]]).await, refused("InvalidPart"));
    let all: Vec<_> = parts.iter().collect();
    let etag = upload.complete(&all).await.unwrap();
    assert!(etag.ends_with("-3\""), "{etag}");
    assert_eq!(upload.complete(&all).await, refused("NoSuchUpload"));
    let head = upload.client.head_object().bucket(bucket.name()).key(KEY).send().await.unwrap();
    assert_eq!((head.content_type(), head.e_tag()), (Some("application/zstd"), Some(etag.as_str())));
    assert!(upload.object().await == [long(1), long(2), vec![3; 100]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_in_any_order_replaced_or_left_out_make_the_object_that_the_client_names() {
    // Its own: the one that tests share joins others' parts too.
    let dir = tempfile::tempdir().unwrap();
    let (server, config) = server(dir.path()).await;
    let upload = Upload::begin(&config).await;
    let third = upload.part(3, long(3)).await;
    let before = upload.part(1, long(9)).await;
    upload.part(2, long(2)).await;
    let staging = dir.path().join("objects/.staging");
    let joined = || std::fs::read_dir(&staging).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
    wait_until(Duration::from_secs(30), "all three are joined before anybody completes", async || joined() == 18 << 20).await;
    let first = upload.part(1, long(1)).await;
    assert_eq!(upload.complete(&[&before, &third]).await, refused("InvalidPart"), "it was replaced");
    upload.complete(&[&first, &third]).await.unwrap();
    assert!(upload.object().await == [long(1), long(3)].concat());
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0, "what was joined ahead is gone");
    server.stop().await;
}

/// A server on a directory that outlives it.
async fn server(dir: &Path) -> (EmbeddedS3, StoreConfig) {
    let server = EmbeddedS3::start(dir, "snapshots", Durability::Durable).await.unwrap();
    let config = StoreConfig {
        endpoint: Some(server.endpoint()),
        bucket: "snapshots".into(),
        region: "us-east-1".into(),
        access_key: server.access_key().into(),
        secret_key: server.secret_key().into(),
        patience: PATIENCE,
    };
    (server, config)
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_and_a_part_that_a_power_cut_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, config) = server(dir.path()).await;
    let mut upload = Upload::begin(&config).await;
    let parts = [upload.part(1, long(1)).await, upload.part(2, vec![2; 100]).await];
    first.stop().await;
    let (second, config) = server(dir.path()).await;
    upload.client = client_for(&config);
    upload.complete(&[&parts[0], &parts[1]]).await.unwrap();
    assert!(upload.object().await == [long(1), vec![2; 100]].concat());

    let mut other = Upload::begin(&config).await;
    let parts = [other.part(1, long(3)).await, other.part(2, vec![4; 100]).await];
    second.stop().await;
    let id = other.id.clone();
    let file = |what: &str| dir.path().join(format!("objects/.upload_id-{id}.{what}"));
    std::fs::write(file("part-2"), [0; 100]).unwrap();
    let (third, config) = server(dir.path()).await;
    other.client = client_for(&config);
    let noted = std::fs::read_to_string(file("etag-2")).unwrap();
    let (etag, _) = noted.split_once(' ').unwrap();
    std::fs::write(file("etag-2"), format!("{etag} another-start-of-the-machine")).unwrap();
    assert_eq!(other.complete(&[&parts[0], &parts[1]]).await, refused("InvalidPart"));
    let again = other.part(2, vec![4; 100]).await;
    other.complete(&[&parts[0], &again]).await.unwrap();
    assert!(other.object().await == [long(3), vec![4; 100]].concat());
    third.stop().await;
}

#[tokio::test]
async fn uploads_under_way_are_listed_page_by_page_and_those_that_ended_are_not() {
    let bucket = support::bucket().await;
    let client = client_for(bucket.config());
    let mut begun = Vec::new();
    for key in ["a/1", "a/2", "a/2", "b/1"] {
        let begin = client.create_multipart_upload().bucket(bucket.name()).key(key).send().await.unwrap();
        begun.push((key.to_owned(), begin.upload_id().unwrap().to_owned()));
    }
    let (key, id) = begun.remove(0);
    client.abort_multipart_upload().bucket(bucket.name()).key(key).upload_id(id).send().await.unwrap();
    let mut seen = Vec::new();
    let (mut key, mut id) = (None, None);
    loop {
        let list = client.list_multipart_uploads().bucket(bucket.name()).max_uploads(1);
        let page = list.set_key_marker(key).set_upload_id_marker(id).send().await.unwrap();
        assert!(page.uploads().len() <= 1);
        seen.extend(page.uploads().iter().map(|open| (open.key().unwrap().to_owned(), open.upload_id().unwrap().to_owned())));
        if page.is_truncated() != Some(true) {
            break;
        }
        (key, id) = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
    }
    begun.sort();
    assert_eq!(seen, begun);
    let list = client.list_multipart_uploads().bucket(bucket.name()).prefix("b/").send().await.unwrap();
    assert_eq!(list.uploads().len(), 1);
}
