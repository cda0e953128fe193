//! What lies in the bucket: listings, for those who tidy up. Nobody decides by one listing alone what is deleted.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Store, StoreError, sort};

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written last.
    pub modified: Option<DateTime<Utc>>,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// Key of the object it would become.
    pub key: String,
    /// The server's id of it.
    pub id: String,
    /// When it was begun.
    pub begun: Option<DateTime<Utc>>,
}

impl Store {
    /// All objects whose keys begin with `prefix`.
    ///
    /// # Errors
    /// Unreachable or refused; never a part of the listing.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let doing = || format!("list `{prefix}*`");
        let mut listed = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).set_continuation_token(next);
            let answer = request.send().await.map_err(|error| sort(doing(), error))?;
            listed.extend(answer.contents().iter().filter_map(|object| {
                Some(Listed {
                    key: object.key()?.to_owned(),
                    bytes: object.size().unwrap_or_default().unsigned_abs(),
                    modified: object.last_modified().and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos())),
                })
            }));
            next = answer.next_continuation_token().map(str::to_owned);
            if next.is_none() && answer.is_truncated() == Some(true) {
                let cause = "the listing is cut off, and the server does not say where to go on".into();
                return Err(StoreError::Unreachable { doing: doing(), cause });
            }
            if next.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Uploads under `prefix` that are older than `age`. A server that cannot list uploads has none to tell of.
    ///
    /// # Errors
    /// Unreachable or refused.
    pub async fn open_uploads(&self, prefix: &str, age: Duration) -> Result<Vec<OpenUpload>, StoreError> {
        let doing = || format!("list uploads of `{prefix}*`");
        let before = Utc::now() - age;
        let mut open = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
            let request = request.set_key_marker(key).set_upload_id_marker(id);
            let answer = match request.send().await.map_err(|error| sort(doing(), error)) {
                Ok(answer) => answer,
                Err(error) if error.is_not_implemented() => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            open.extend(answer.uploads().iter().filter_map(|upload| {
                let begun = upload.initiated().and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos()));
                Some(OpenUpload { key: upload.key()?.to_owned(), id: upload.upload_id()?.to_owned(), begun })
            }));
            key = answer.next_key_marker().map(str::to_owned);
            id = answer.next_upload_id_marker().map(str::to_owned);
            if answer.is_truncated() != Some(true) || key.is_none() {
                open.retain(|upload| upload.begun.is_some_and(|begun| begun < before));
                return Ok(open);
            }
        }
    }
}
