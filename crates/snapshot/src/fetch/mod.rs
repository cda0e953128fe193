//! Reads published snapshots from where they are: an HTTP address, a bucket, or a directory that mirrors one. Nothing of this
//! service need run.
//!
//! Not a judge: what comes back is what was stored, in full length; `opened` and [`Source::chunk`] check it against
//! signatures and digests. Invariant: a connection that breaks costs the rest of one object's range, never the object.

mod bucket;
mod error;
mod http;
mod opened;
mod pace;
mod ranges;
mod seen;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use error::FetchError;
pub use opened::{OpenError, Opened, Wanted, open, open_known};
pub use pace::{PROGRESS_BYTES, Pace, SILENCE};
pub use seen::Seen;

use crate::encrypt::{EncryptionError, Identities};
use crate::key::Key;
use crate::manifest::Profile;
use crate::store::Store;
use bucket::{BucketObject, sorted};
use http::HttpSource;

/// The largest object without a known length: signatures, pointers, manifests.
const SMALL_BYTES: u64 = 256 << 20;

/// Where snapshots are published. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    place: Place,
    identities: Option<Identities>,
    fetched: Arc<AtomicU64>,
    retries: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
enum Place {
    Http(HttpSource),
    Bucket(Store),
    Directory(PathBuf),
}

/// What a place says about an object's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// There is no such object.
    Missing,
    /// It has so many bytes.
    Bytes(u64),
    /// It is there; how long it is, the server does not say.
    Unknown,
}

impl Source {
    /// True for a directory, which is cheap to read twice.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.place, Place::Directory(_))
    }

    /// The bucket's public address, or a running service: `https://…`, with or without a trailing slash.
    ///
    /// # Errors
    /// [`FetchError::Address`] for what is no HTTP address.
    pub fn http(base: &str) -> Result<Self, FetchError> {
        Ok(Self::at(Place::Http(HttpSource::new(base)?)))
    }

    /// A bucket with credentials.
    #[must_use]
    pub fn bucket(store: Store) -> Self {
        Self::at(Place::Bucket(store))
    }

    /// A directory laid out like the bucket, as `snapshots download --chunks` makes one.
    #[must_use]
    pub fn directory(path: PathBuf) -> Self {
        Self::at(Place::Directory(path))
    }

    fn at(place: Place) -> Self {
        Self { place, identities: None, fetched: Arc::default(), retries: Arc::default() }
    }

    /// Looks for snapshots of the `full` profile, and opens them with these keys.
    #[must_use]
    pub fn opened_with(self, identities: Identities) -> Self {
        Self { identities: Some(identities), ..self }
    }

    /// True of a directory: it holds chunks and what is signed, and an archive only where somebody put one.
    pub(crate) fn is_mirror(&self) -> bool {
        matches!(self.place, Place::Directory(_))
    }

    /// What is looked for here.
    #[must_use]
    pub fn profile(&self) -> Profile {
        if self.identities.is_some() { Profile::Full } else { Profile::Public }
    }

    /// Bytes of objects fetched so far.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// How often a request was sent again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// A whole small object, or `None` where there is none.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn small(&self, key: &Key) -> Result<Option<Bytes>, FetchError> {
        match self.read(&key.to_string(), None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(FetchError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Length of an object, without reading it.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn size(&self, key: &Key) -> Result<Size, FetchError> {
        let key = key.to_string();
        match &self.place {
            Place::Http(http) => http.size(&key, &self.retries).await,
            Place::Bucket(store) => {
                let found = store.head_at(&key).await.map_err(|error| sorted(error, &key))?;
                Ok(found.map_or(Size::Missing, |meta| Size::Bytes(meta.bytes)))
            }
            Place::Directory(root) => match tokio::fs::metadata(root.join(&key)).await {
                Ok(meta) => Ok(Size::Bytes(meta.len())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Size::Missing),
                Err(source) => Err(FetchError::File { path: root.join(&key), source }),
            },
        }
    }

    /// What the object `key` holds, which is named by its digest and `bytes` long: checked against its name before anybody looks into
    /// it, and then decrypted where it is encrypted. One that comes wrong is fetched once more, in case something on the way damaged it.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Damaged`] where it is stored wrong.
    pub async fn chunk(&self, key: &Key, bytes: u64) -> Result<Bytes, FetchError> {
        let body = self.stored(key, Some(bytes)).await?;
        self.decrypted(key, body).await
    }

    /// The bytes of an object that is named by its digest, as they are stored: checked against its name and, where that is known,
    /// its length; not decrypted.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn stored(&self, key: &Key, bytes: Option<u64>) -> Result<Bytes, FetchError> {
        match self.checked(key, bytes).await {
            Err(FetchError::Damaged { .. }) => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                self.checked(key, bytes).await
            }
            other => other,
        }
    }

    /// As [`Source::chunk`], for a small object whose length nobody noted.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn small_chunk(&self, key: &Key) -> Result<Bytes, FetchError> {
        let body = self.checked(key, None).await?;
        self.decrypted(key, body).await
    }

    /// What a checked object holds.
    async fn decrypted(&self, key: &Key, body: Bytes) -> Result<Bytes, FetchError> {
        let Some(identities) = self.identities.clone() else { return Ok(body) };
        let closed = |source| FetchError::Closed { key: key.to_string(), source };
        let opened = tokio::task::spawn_blocking(move || identities.decrypt(&body)).await;
        let opened = opened.map_err(|panic| closed(EncryptionError::Damaged(panic.to_string())))?;
        opened.map_err(closed)
    }

    async fn checked(&self, key: &Key, bytes: Option<u64>) -> Result<Bytes, FetchError> {
        let sha256 = key.digest().unwrap_or_default().to_owned();
        let key = key.to_string();
        let body = self.read(&key, bytes).await?;
        let hashed = tokio::task::spawn_blocking(move || (hex::encode(Sha256::digest(&body)), body)).await;
        let damaged = |found: String| FetchError::Damaged { key: key.clone(), expected: sha256.clone(), found };
        let (found, body) = hashed.map_err(|panic| damaged(panic.to_string()))?;
        if found != sha256 {
            return Err(damaged(format!("sha256 {found} of {} bytes", body.len())));
        }
        Ok(body)
    }

    /// All bytes of an object; `bytes` is the length it must have.
    async fn read(&self, key: &str, bytes: Option<u64>) -> Result<Bytes, FetchError> {
        let limit = bytes.unwrap_or(SMALL_BYTES);
        let body = match &self.place {
            Place::Http(http) => ranges::whole(&http.object(key), limit, http::PATIENCE, &self.retries).await?,
            Place::Bucket(store) => ranges::whole(&BucketObject { store, key }, limit, bucket::PATIENCE, &self.retries).await?,
            Place::Directory(root) => from_directory(root, key).await?,
        };
        self.fetched.fetch_add(body.len() as u64, Ordering::Relaxed);
        match bytes {
            Some(expected) if body.len() as u64 != expected => Err(FetchError::Damaged {
                key: key.to_owned(),
                expected: format!("{expected} bytes"),
                found: format!("{} bytes", body.len()),
            }),
            _ => Ok(body),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Http(http) => f.write_str(http.base()),
            Place::Bucket(store) => write!(f, "s3://{}", store.bucket()),
            Place::Directory(root) => write!(f, "{}", root.display()),
        }
    }
}

async fn from_directory(root: &std::path::Path, key: &str) -> Result<Bytes, FetchError> {
    let path = root.join(key);
    match tokio::fs::read(&path).await {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(FetchError::Missing { key: key.to_owned() }),
        Err(source) => Err(FetchError::File { path, source }),
    }
}

/// Where `bytes 5-9/10` begins.
fn start(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
