//! Multipart upload of archives: equal parts (R2 refuses others), resumable, completed only if the key is still free.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart as S3Part};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Put, Store, StoreError, sort};
use crate::key::Key;

/// S3's lower bound for every part but the last.
pub const MIN_PART_BYTES: u64 = 5 << 20;
/// S3's upper bound on the number of parts.
const MAX_PARTS: u64 = 10_000;

/// Size of equal parts for an archive of `total` bytes: 8 MiB, doubled until 10,000 parts hold it. Small parts keep the
/// memory of an upload small.
pub fn part_bytes(total: u64) -> u64 {
    let mut part = 8 << 20;
    while total.div_ceil(part) > MAX_PARTS {
        part *= 2;
    }
    part
}

/// A part the server has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedPart {
    /// From 1.
    pub number: i32,
    /// As the server gave it.
    pub etag: String,
}

impl Store {
    /// Starts a multipart upload and returns its id. Nothing is visible under `key` until it is completed.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn create_upload(&self, key: &Key) -> Result<String, StoreError> {
        let (content_type, cache_control) = key.headers();
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(key.to_string());
        let request = request.content_type(content_type).cache_control(cache_control);
        let answer = request.send().await.map_err(|error| sort(format!("start upload of `{key}`"), error))?;
        answer.upload_id().map(str::to_owned).ok_or_else(|| StoreError::Unreachable {
            doing: format!("start upload of `{key}`"),
            cause: "the server gave no upload id".into(),
        })
    }

    /// Uploads one part. Sending the same part again replaces it.
    ///
    /// # Errors
    /// Unreachable; [`StoreError::Refused`] with code `NoSuchUpload` when the upload was aborted meanwhile.
    pub async fn upload_part(&self, key: &Key, upload_id: &str, number: i32, body: Bytes) -> Result<CompletedPart, StoreError> {
        let request = self.client.upload_part().bucket(&self.bucket).key(key.to_string());
        let request = request.upload_id(upload_id).part_number(number).body(ByteStream::from(body));
        let answer = request.customize().disable_payload_signing().send().await;
        let answer = answer.map_err(|error| sort(format!("upload part {number} of `{key}`"), error))?;
        Ok(CompletedPart { number, etag: answer.e_tag().unwrap_or_default().to_owned() })
    }

    /// Makes the object visible, all at once, unless its key is taken.
    ///
    /// # Errors
    /// Unreachable or refused; a taken key is not an error.
    pub async fn complete_upload(&self, key: &Key, upload_id: &str, parts: &[CompletedPart]) -> Result<Put, StoreError> {
        let parts = parts.iter().map(|part| S3Part::builder().part_number(part.number).e_tag(&part.etag).build());
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(key.to_string());
        let request = request.upload_id(upload_id).multipart_upload(upload).if_none_match("*");
        match request.send().await.map_err(|error| sort(format!("complete upload of `{key}`"), error)) {
            Ok(_) => Ok(Put::Created),
            Err(StoreError::Precondition { .. }) => Ok(Put::Existed),
            Err(error) => Err(error),
        }
    }

    /// Gives up an upload and frees its parts. An upload that is already gone is fine.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), StoreError> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        match request.send().await.map_err(|error| sort(format!("abort upload of `{key}`"), error)) {
            Ok(_) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(StoreError::Refused { code, .. }) if code == "NoSuchUpload" => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_until_the_archive_needs_more_than_ten_thousand() {
        assert_eq!(part_bytes(400 << 20), 8 << 20);
        assert_eq!(part_bytes(80_000 << 20), 8 << 20);
        assert_eq!(part_bytes((80_000 << 20) + 1), 16 << 20);
        assert!((5u64 << 40).div_ceil(part_bytes(5 << 40)) <= MAX_PARTS);
    }
}
