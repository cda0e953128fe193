//! Makes a finished object visible under its key, whole or not at all.
//!
//! s3s-fs renames first and checks digests, then writes the `ETag`; two clients may both find a key free. So here
//! every object is written and checked in the hidden staging bucket, flushed, and then moved under the key's lock.
//! Invariant: a crash at any point leaves the old object or the new one, and never new bytes with an old `ETag`:
//! the old `ETag` goes first, and while there is none it is computed from the bytes.
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use s3s::crypto::{Checksum, Md5};
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use uuid::Uuid;

use super::layout::{Layout, STAGING};

/// What the client demands of the object that is there now.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl Conditions {
    /// Compares with the present object. As at AWS, `If-Match` on a key that is not there is 404, all else 412.
    pub(super) fn check(&self, layout: &Layout, bucket: &str, key: &str) -> S3Result<()> {
        if self.if_match.is_none() && self.if_none_match.is_none() {
            return Ok(());
        }
        let current = current_etag(layout, bucket, key)?;
        match (&self.if_match, &current) {
            (Some(_), None) => return Err(s3_error!(NoSuchKey, "there is no object to match")),
            (Some(ETagCondition::ETag(wanted)), Some(found)) if !found.strong_cmp(wanted) => {
                return Err(s3_error!(PreconditionFailed, "the object has another ETag"));
            }
            _ => {}
        }
        match (&self.if_none_match, &current) {
            (Some(ETagCondition::Any), Some(_)) => Err(s3_error!(PreconditionFailed, "the object exists")),
            (Some(ETagCondition::ETag(unwanted)), Some(found)) if found.weak_cmp(unwanted) => {
                Err(s3_error!(PreconditionFailed, "the object has this ETag"))
            }
            _ => Ok(()),
        }
    }
}

fn current_etag(layout: &Layout, bucket: &str, key: &str) -> S3Result<Option<ETag>> {
    let object = layout.object(bucket, key)?;
    if !object.is_file() {
        return Ok(None);
    }
    let recorded = std::fs::read(layout.internal(bucket, key))
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .and_then(|info| Some(info.get("e_tag")?.as_str()?.to_owned()));
    let value = match recorded {
        Some(value) => value,
        None => md5_of(&object).map_err(io_error)?,
    };
    Ok(Some(ETag::Strong(value)))
}

/// The md5 of a file, in hex.
pub(super) fn md5_of(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut md5 = Md5::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(md5.finalize())),
            read => md5.update(&buffer[..read]),
        }
    }
}

/// An object in the staging bucket; what is left of it is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct Staged {
    layout: Layout,
    pub(super) key: String,
}

impl Staged {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), key: Uuid::new_v4().simple().to_string() }
    }

    pub(super) fn object(&self) -> PathBuf {
        self.layout.bucket(STAGING).join(&self.key)
    }

    pub(super) fn attributes(&self) -> PathBuf {
        self.layout.attributes(STAGING, &self.key)
    }

    pub(super) fn internal(&self) -> PathBuf {
        self.layout.internal(STAGING, &self.key)
    }

    /// Moves the object to its key. The caller holds the key's write lock; blocks.
    pub(super) fn commit(self, bucket: &str, key: &str, conditions: &Conditions, durable: bool) -> S3Result<()> {
        let layout = &self.layout;
        if !layout.bucket(bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket, "there is no bucket `{bucket}`"));
        }
        conditions.check(layout, bucket, key)?;
        let object = layout.object(bucket, key)?;
        let parent = object.parent().unwrap_or(layout.root());
        make_dirs(layout.root(), parent, durable).map_err(io_error)?;
        remove_if_there(&layout.internal(bucket, key)).map_err(io_error)?;
        move_if_there(&self.attributes(), &layout.attributes(bucket, key)).map_err(io_error)?;
        std::fs::rename(self.object(), &object).map_err(io_error)?;
        move_if_there(&self.internal(), &layout.internal(bucket, key)).map_err(io_error)?;
        if durable {
            sync(parent).map_err(io_error)?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in [self.object(), self.attributes(), self.internal()] {
            // Best effort: after a commit nothing is left, and the next start sweeps.
            let _ = remove_if_there(&path);
        }
    }
}

/// Flushes a file or directory to the disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn make_dirs(root: &Path, parent: &Path, durable: bool) -> io::Result<()> {
    if parent.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(parent)?;
    if durable {
        for dir in parent.ancestors().skip(1).take_while(|dir| dir.starts_with(root)) {
            sync(dir)?;
        }
    }
    Ok(())
}

/// Deletes a file that may be missing.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    missing_is_fine(std::fs::remove_file(path))
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    missing_is_fine(std::fs::rename(from, to))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The answer to a failed file operation: 507 for a full disk, which clients do not retry, else 500, both with words.
pub(super) fn io_error(error: io::Error) -> S3Error {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let mut answer = if full {
        let code = S3ErrorCode::Custom("InsufficientStorage".into());
        let mut answer = S3Error::with_message(code, "the disk of the embedded object store is full");
        answer.set_status_code(http::StatusCode::INSUFFICIENT_STORAGE);
        answer
    } else {
        S3Error::with_message(S3ErrorCode::InternalError, format!("file operation failed: {error}"))
    };
    tracing::error!(%error, "embedded object store");
    answer.set_source(Box::new(error));
    answer
}

/// Gives a failure inside s3s-fs the same words, since it sends none.
pub(super) fn explain(error: S3Error) -> S3Error {
    let mut cause = error.source().map(|source| source as &(dyn std::error::Error + 'static));
    while let Some(source) = cause {
        if let Some(found) = source.downcast_ref::<io::Error>()
            && let Some(kind) = found.raw_os_error().map(io::Error::from_raw_os_error)
        {
            return io_error(kind);
        }
        cause = source.source();
    }
    error
}
