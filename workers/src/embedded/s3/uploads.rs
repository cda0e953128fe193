//! Which multipart uploads are under way: what a pruner asks to find those that nobody goes on with.
use std::time::SystemTime;

use s3s::dto::*;
use s3s::{S3Response, S3Result, s3_error};

use super::commit::io_error;
use super::objects::{Objects, blocking};

/// Most uploads of one answer (AWS S3 API reference, "ListMultipartUploads").
const PAGE: i32 = 1_000;

/// An upload that was begun and has not ended.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) begun: SystemTime,
}

impl Objects {
    pub(super) async fn list_open(&self, input: ListMultipartUploadsInput) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let ListMultipartUploadsInput { bucket, delimiter, prefix, key_marker, upload_id_marker, max_uploads, .. } = input;
        if delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "this server lists uploads without a delimiter only"));
        }
        if !self.layout.bucket(&bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket, "there is no bucket `{bucket}`"));
        }
        let (layout, of) = (self.layout.clone(), bucket.clone());
        let mut open = blocking(move || layout.open_uploads(&of).map_err(io_error)).await?;
        let (start, marker) = (prefix.as_deref().unwrap_or_default(), key_marker.as_deref().unwrap_or_default());
        let after = |upload: &Open| match upload_id_marker.as_deref() {
            Some(id) => (upload.key.as_str(), upload.id.as_str()) > (marker, id),
            None => upload.key.as_str() > marker,
        };
        open.retain(|upload| upload.key.starts_with(start) && after(upload));
        open.sort_unstable_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        let page = usize::try_from(max_uploads.unwrap_or(PAGE).clamp(1, PAGE)).unwrap_or_default();
        let truncated = open.len() > page;
        open.truncate(page);
        let last = open.last().filter(|_| truncated).map(|upload| (upload.key.clone(), upload.id.clone()));
        let (next_key_marker, next_upload_id_marker) = last.unzip();
        let upload = |upload: Open| MultipartUpload {
            key: Some(upload.key),
            upload_id: Some(upload.id),
            initiated: Some(upload.begun.into()),
            ..Default::default()
        };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(bucket),
            prefix,
            key_marker,
            upload_id_marker,
            next_key_marker,
            next_upload_id_marker,
            is_truncated: Some(truncated),
            uploads: Some(open.into_iter().map(upload).collect()),
            ..Default::default()
        }))
    }
}
