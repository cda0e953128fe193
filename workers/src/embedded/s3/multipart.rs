//! Multipart uploads that survive a crash.
//!
//! s3s-fs keeps no `ETag` of a part, ends the upload before it has joined the parts and deletes each part as it
//! goes. Here an upload ends only after its object is visible. Invariant: until then no crash of ours takes a part that was
//! acknowledged, and a part is joined only if its `ETag` is the one the client names. Bytes are hashed once,
//! when they arrive; joining is a copy inside the kernel.
//!
//! Parts are not flushed one by one: the whole is, before it is visible. A machine that lost its power may have lost parts, so
//! after another start of the machine they are hashed again, and one that is not what it was is refused.
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use s3s::crypto::{Checksum, Md5};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use uuid::Uuid;

use super::ahead::{self, Joined};
use super::commit::{Conditions, explain, io_error, md5_of, remove_if_there};
use super::layout::Layout;
use super::objects::{Objects, blocking};

/// Every part but the last must have this many bytes (AWS S3 user guide, "multipart upload limits").
const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

/// A part that is stored.
pub(super) struct Stored {
    pub(super) number: i32,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Hex md5 of the bytes.
    pub(super) etag: String,
}

impl Stored {
    fn read(layout: &Layout, upload: &str, number: i32) -> io::Result<Self> {
        if let Some(known) = Self::known(layout, upload, number)? {
            return Ok(known);
        }
        let path = layout.part(upload, number);
        Ok(Self { number, bytes: std::fs::metadata(&path)?.len(), etag: md5_of(&path)?, path })
    }

    /// A part whose `ETag` was written since the machine started. It is written after the part; a crash between the two
    /// leaves none.
    pub(super) fn known(layout: &Layout, upload: &str, number: i32) -> io::Result<Option<Self>> {
        let Ok(recorded) = std::fs::read_to_string(layout.part_etag(upload, number)) else { return Ok(None) };
        let Some((etag, _)) = recorded.split_once(' ').filter(|(_, boot)| *boot == boot_id()) else { return Ok(None) };
        let path = layout.part(upload, number);
        let bytes = std::fs::metadata(&path)?.len();
        Ok(Some(Self { number, path, bytes, etag: etag.to_owned() }))
    }

    fn record(layout: &Layout, upload: &str, number: i32, etag: &str) -> io::Result<()> {
        std::fs::write(layout.part_etag(upload, number), format!("{etag} {}", boot_id()))
    }
}

/// What tells this start of the machine from others; of this process where the system has no such thing.
fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
    })
}

impl Objects {
    /// The upload exists, and for this key.
    pub(super) fn known_upload(&self, bucket: &str, key: &str, upload: &str) -> S3Result<()> {
        let known = Uuid::parse_str(upload).is_ok() && self.layout.upload_attributes(bucket, key, upload).is_file();
        match known {
            true => Ok(()),
            false => Err(s3_error!(NoSuchUpload, "there is no such upload: it was completed, aborted or never begun")),
        }
    }

    pub(super) async fn store_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = &req.input;
        self.known_upload(&input.bucket, &input.key, &input.upload_id)?;
        let (upload, number) = (input.upload_id.clone(), input.part_number);
        if !(1..=10_000).contains(&number) {
            return Err(s3_error!(InvalidArgument, "part numbers go from 1 to 10000"));
        }
        remove_if_there(&self.layout.part_etag(&upload, number)).map_err(io_error)?;
        let answer = self.inner.upload_part(req).await.map_err(explain)?;
        let etag = answer.output.e_tag.as_ref().map(|etag| etag.value().to_owned()).unwrap_or_default();
        let (layout, joining, durable) = (self.layout.clone(), self.ahead.of(&upload), self.durable);
        let (to, of) = (layout.clone(), upload.clone());
        blocking(move || Stored::record(&to, &of, number, &etag).map_err(io_error)).await?;
        // The client need not wait for this; completing the upload does.
        tokio::task::spawn_blocking(move || ahead::extend(&joining, &layout, &upload, durable));
        Ok(answer)
    }

    pub(super) async fn stored_parts(&self, input: ListPartsInput) -> S3Result<S3Response<ListPartsOutput>> {
        self.known_upload(&input.bucket, &input.key, &input.upload_id)?;
        let (layout, upload) = (self.layout.clone(), input.upload_id.clone());
        let parts = blocking(move || {
            let mut parts = Vec::new();
            for number in layout.part_numbers(&upload).map_err(io_error)? {
                let part = Stored::read(&layout, &upload, number).map_err(io_error)?;
                parts.push(Part {
                    part_number: Some(part.number),
                    size: Some(i64::try_from(part.bytes).unwrap_or(i64::MAX)),
                    e_tag: Some(ETag::Strong(part.etag)),
                    ..Default::default()
                });
            }
            Ok(parts)
        })
        .await?;
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            parts: Some(parts),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }

    pub(super) async fn join_parts(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let CompleteMultipartUploadInput { bucket, key, upload_id, if_match, if_none_match, multipart_upload, .. } = input;
        self.known_upload(&bucket, &key, &upload_id)?;
        let conditions = Conditions { if_match, if_none_match };
        conditions.check(&self.layout, &bucket, &key)?;
        let named = multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let (layout, ahead, upload) = (self.layout.clone(), Arc::clone(&self.ahead), upload_id.clone());
        let begun = layout.upload_attributes(&bucket, &key, &upload);
        let (staged, etag) = blocking(move || {
            let parts = chosen(&layout, &upload, &named)?;
            let joined = join(&layout, ahead.take(&upload), &parts).map_err(io_error)?;
            std::fs::copy(begun, joined.staged.attributes()).map_err(io_error)?;
            let etag = etag_of(&parts).map_err(io_error)?;
            std::fs::write(joined.staged.internal(), serde_json::json!({ "e_tag": etag }).to_string()).map_err(io_error)?;
            Ok((joined.staged, etag))
        })
        .await?;
        self.commit(staged, &bucket, &key, conditions).await?;
        let (layout, begun) = (self.layout.clone(), self.layout.upload_attributes(&bucket, &key, &upload_id));
        blocking(move || forget(&layout, &upload_id, begun).map_err(io_error)).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }
}

/// The parts that the client names, if they are what it believes they are.
fn chosen(layout: &Layout, upload: &str, named: &[CompletedPart]) -> S3Result<Vec<Stored>> {
    if named.is_empty() {
        return Err(s3_error!(InvalidPart, "name at least one part"));
    }
    let mut parts: Vec<Stored> = Vec::with_capacity(named.len());
    for part in named {
        let number = part.part_number.unwrap_or(0);
        if parts.last().is_some_and(|last| last.number >= number) {
            return Err(s3_error!(InvalidPartOrder, "part numbers must ascend"));
        }
        let stored = match Stored::read(layout, upload, number) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(s3_error!(InvalidPart, "part {number} was not uploaded"));
            }
            Err(error) => return Err(io_error(error)),
        };
        if part.e_tag.as_ref().is_none_or(|etag| etag.value() != stored.etag) {
            return Err(s3_error!(InvalidPart, "part {number} has another ETag"));
        }
        parts.push(stored);
    }
    match parts.iter().rev().skip(1).find(|part| part.bytes < MIN_PART_BYTES) {
        Some(small) => Err(s3_error!(EntityTooSmall, "part {} has fewer than {MIN_PART_BYTES} bytes", small.number)),
        None => Ok(parts),
    }
}

/// Joins what is not joined yet.
fn join(layout: &Layout, ahead: Option<Joined>, parts: &[Stored]) -> io::Result<Joined> {
    let (mut joined, held) = match ahead.and_then(|joined| joined.holds(parts).map(|held| (joined, held))) {
        Some(begun) => begun,
        None => (Joined::new(layout)?, 0),
    };
    parts[held..].iter().try_for_each(|part| joined.append(part))?;
    Ok(joined)
}

/// The `ETag` of the whole: md5 of the parts' md5s, a hyphen, their number.
fn etag_of(parts: &[Stored]) -> io::Result<String> {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&hex::decode(&part.etag).map_err(io::Error::other)?);
    }
    Ok(format!("{}-{}", hex::encode(md5.finalize()), parts.len()))
}

/// Ends the upload: first its existence, then its parts, which a later start would sweep too.
fn forget(layout: &Layout, upload: &str, begun: PathBuf) -> io::Result<()> {
    remove_if_there(&begun)?;
    for number in layout.part_numbers(upload)? {
        remove_if_there(&layout.part(upload, number))?;
        remove_if_there(&layout.part_etag(upload, number))?;
    }
    remove_if_there(&layout.upload(upload))
}
