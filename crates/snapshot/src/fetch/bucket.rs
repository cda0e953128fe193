//! Objects of a bucket with credentials.

use futures::StreamExt;
use futures::stream;

use super::ranges::{Answer, Failed, Patience, Ranged, pause};
use super::{FetchError, SILENCE};
use crate::store::{Store, StoreError};

/// For whole objects; the store itself asks thrice before it says that a server does not answer.
pub(super) const PATIENCE: Patience = Patience { tries: 5, silence: SILENCE, pause };

/// One object there.
pub(super) struct BucketObject<'a> {
    pub(super) store: &'a Store,
    pub(super) key: &'a str,
}

impl Ranged for BucketObject<'_> {
    fn address(&self) -> String {
        format!("s3://{}/{}", self.store.bucket(), self.key)
    }

    async fn open(&self, from: u64) -> Result<Answer, Failed> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let object = self.store.open(self.key, range.as_deref()).await.map_err(|error| match error {
            StoreError::Unreachable { cause, .. } => Failed::Broken(cause),
            StoreError::Refused { code, .. } if from > 0 && code == "InvalidRange" => Failed::NoSuchRange,
            other => Failed::Final(sorted(other, self.key)),
        })?;
        let begins = object.range.as_deref().map_or(Some(0), super::start).ok_or(Failed::NoSuchRange)?;
        let length = object.bytes;
        let body = stream::try_unfold(object.body, async |mut body| {
            let part = body.try_next().await.map_err(|error| error.to_string())?;
            Ok(part.map(|part| (part, body)))
        });
        Ok(Answer { from: begins, length: Some(length), body: body.boxed() })
    }
}

/// The bucket's answer as one about an object.
pub(super) fn sorted(error: StoreError, key: &str) -> FetchError {
    match error {
        StoreError::Missing { .. } => FetchError::Missing { key: key.to_owned() },
        other => FetchError::Store(other),
    }
}
