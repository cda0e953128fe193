//! The bucket: the only path to object storage, in production, tests and demo alike.
//!
//! Data objects are written once, under `If-None-Match: *`; pointers are replaced by compare-and-swap on their `ETag`.
//! Invariant: nothing here overwrites an object without a condition.

mod error;
mod list;
mod multipart;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

pub use error::StoreError;
pub use list::{Listed, OpenUpload};
pub use multipart::{CompletedPart, MIN_PART_BYTES, part_bytes};

use crate::buffer::Buffer;
use crate::key::Key;
use error::sort;

/// Where the bucket is and how to sign for it.
#[derive(Clone)]
pub struct StoreConfig {
    /// `None` for AWS itself; else the S3 endpoint, for example `https://<account>.r2.cloudflarestorage.com`.
    pub endpoint: Option<String>,
    /// Bucket name.
    pub bucket: String,
    /// Signing region; R2 wants `auto`.
    pub region: String,
    /// Access key id.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// How long a request may take, its body included, until the answer begins; see [`PATIENCE`].
    pub patience: Duration,
}

/// Long enough for a chunk of 64 MiB at 10 Mbit/s.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret must not reach a log by way of `{:?}`.
        f.debug_struct("StoreConfig").field("endpoint", &self.endpoint).field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Size and version of a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Size in bytes.
    pub bytes: u64,
    /// Strong validator, as the server gave it (with quotes).
    pub etag: String,
    /// Media type, as stored.
    pub content_type: Option<String>,
    /// Cache rule, as stored.
    pub cache_control: Option<String>,
}

/// Whether a conditional put wrote the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// This call wrote it.
    Created,
    /// It was there before.
    Existed,
}

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    bucket: String,
}

impl Store {
    /// Builds a client; does not talk to the server yet (see [`Store::check`]).
    pub fn new(config: &StoreConfig) -> Self {
        let mut builder = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .credentials_provider(Credentials::new(&config.access_key, &config.secret_key, None, None, "snapshots"))
            .force_path_style(true)
            // Our sha256 in the manifest is the truth; R2 refuses the SDK's default CRC trailers beside others.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(Duration::from_secs(20)).build())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).read_timeout(config.patience).build(),
            );
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Self { client: Client::from_conf(builder.build()), bucket: config.bucket.clone() }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Asks the server whether the bucket is there and ours.
    ///
    /// # Errors
    /// As every call: unreachable or refused.
    pub async fn check(&self) -> Result<(), StoreError> {
        let doing = format!("look up bucket `{}`", self.bucket);
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(match sort(doing.clone(), error) {
                StoreError::Missing { .. } => {
                    StoreError::Refused { doing, code: "NoSuchBucket".into(), message: "there is no such bucket".into() }
                }
                other => other,
            }),
        }
    }

    /// Writes an immutable object unless its key is taken.
    ///
    /// # Errors
    /// Unreachable or refused; a taken key is not an error.
    pub async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        match self.put(key, body, Condition::Absent).await {
            Ok(_) => Ok(Put::Created),
            Err(StoreError::Precondition { .. }) => Ok(Put::Existed),
            Err(error) => Err(error),
        }
    }

    /// Replaces a pointer if it still has the `etag` last seen (`None`: if it does not exist). Returns the new etag.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when somebody else was faster.
    pub async fn put_if_match(&self, key: &Key, body: Bytes, etag: Option<&str>) -> Result<String, StoreError> {
        let condition = etag.map_or(Condition::Absent, Condition::Etag);
        self.put(key, body, condition).await
    }

    async fn put(&self, key: &Key, body: Bytes, condition: Condition<'_>) -> Result<String, StoreError> {
        let (content_type, cache_control) = key.headers();
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key.to_string())
            .content_type(content_type)
            .cache_control(cache_control)
            .body(ByteStream::from(body));
        let request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Etag(etag) => request.if_match(etag),
        };
        // Bodies are checked against our own sha256 when they are read back; signing them would hash every byte once more.
        let answer = request.customize().disable_payload_signing().send().await;
        let answer = answer.map_err(|error| sort(format!("put `{key}`"), error))?;
        Ok(answer.e_tag().unwrap_or_default().to_owned())
    }

    /// Size and etag of an object, or `None`.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StoreError> {
        self.head_at(&key.to_string()).await
    }

    /// As [`Store::head`], for a key that a reader asked for by its text.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn head_at(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => Ok(Some(ObjectMeta {
                bytes: answer.content_length().unwrap_or_default().unsigned_abs(),
                etag: answer.e_tag().unwrap_or_default().to_owned(),
                content_type: answer.content_type().map(str::to_owned),
                cache_control: answer.cache_control().map(str::to_owned),
            })),
            Err(error) => match sort(format!("head `{key}`"), error) {
                StoreError::Missing { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Takes an object away; one that is not there is fine.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.delete_at(&key.to_string()).await
    }

    /// As [`Store::delete`], for a key from a listing.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn delete_at(&self, key: &str) -> Result<(), StoreError> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) => match sort(format!("delete `{key}`"), error) {
                StoreError::Missing { .. } => Ok(()),
                other => Err(other),
            },
        }
    }

    /// Takes an object away if it still has this etag. A server that does not know the condition takes it away in any case.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] if it was replaced or taken away meanwhile; unreachable or refused.
    pub async fn delete_if_match(&self, key: &Key, etag: &str) -> Result<(), StoreError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(key.to_string()).if_match(etag);
        match request.send().await.map_err(|error| sort(format!("delete `{key}`"), error)) {
            Ok(_) => Ok(()),
            Err(StoreError::Missing { key: doing }) => Err(StoreError::Precondition { doing }),
            Err(error) if error.is_not_implemented() => self.delete(key).await,
            Err(error) => Err(error),
        }
    }

    /// A whole small object with its etag, or `None`.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn get(&self, key: &Key) -> Result<Option<(Bytes, String)>, StoreError> {
        self.read(&key.to_string()).await
    }

    /// As [`Store::get`], for a key from a listing, without its etag.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn get_at(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read(key).await?.map(|(bytes, _)| bytes))
    }

    async fn read(&self, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        let object = match self.open(key, None).await {
            Err(StoreError::Missing { .. }) => return Ok(None),
            other => other?,
        };
        let etag = object.etag.clone();
        let mut body = Buffer::of(usize::try_from(object.bytes).unwrap_or_default());
        object.append_to(key, &mut body).await?;
        Ok(Some((body.freeze(), etag)))
    }

    /// Opens an object, or a `bytes=…` range of it, as a stream.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there is none; unreachable or refused (a range outside the object is refused with
    /// code `InvalidRange`).
    pub async fn open(&self, key: &str, range: Option<&str>) -> Result<OpenObject, StoreError> {
        let request = self.client.get_object().bucket(&self.bucket).key(key).set_range(range.map(str::to_owned));
        let answer = request.send().await.map_err(|error| sort(format!("get `{key}`"), error))?;
        Ok(OpenObject {
            bytes: answer.content_length().unwrap_or_default().unsigned_abs(),
            etag: answer.e_tag().unwrap_or_default().to_owned(),
            range: answer.content_range().map(str::to_owned),
            body: answer.body,
        })
    }
}

/// An object, or a range of it, being read.
pub struct OpenObject {
    /// Bytes that `body` will give.
    pub bytes: u64,
    /// Strong validator of the whole object.
    pub etag: String,
    /// Which of the object's bytes they are (`bytes 5-9/10`), unless they are all.
    pub range: Option<String>,
    /// The bytes.
    pub body: ByteStream,
}

impl OpenObject {
    /// Reads to the end.
    ///
    /// # Errors
    /// Unreachable, when the connection is lost on the way; `key` is for its text.
    pub async fn append_to(mut self, key: &str, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let lost = |error| StoreError::Unreachable { doing: format!("get `{key}`"), cause: format!("{error}") };
        while let Some(part) = self.body.try_next().await.map_err(lost)? {
            buffer.extend_from_slice(&part);
        }
        Ok(())
    }
}

enum Condition<'a> {
    Absent,
    Etag(&'a str),
}
