//! What can go wrong with the bucket, sorted by what the caller can do about it.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// A failed request to the bucket. The key is part of every message.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server could not be reached or answered 5xx; trying again may help.
    #[error("bucket unreachable while {doing}: {cause}")]
    Unreachable {
        /// The request, for example ``put `chunks/…` ``.
        doing: String,
        /// What the server answered, or why there was no answer.
        cause: String,
    },
    /// Credentials, rights or the bucket's name are wrong; trying again will not help.
    #[error("bucket refused {doing}: {code}: {message}; check S3_BUCKET and the AWS_* credentials")]
    Refused {
        /// The request.
        doing: String,
        /// S3 error code, for example `AccessDenied`.
        code: String,
        /// The server's words.
        message: String,
    },
    /// A conditional write lost: the object changed or exists already.
    #[error("precondition failed while {doing}")]
    Precondition {
        /// The request.
        doing: String,
    },
    /// The object is not there.
    #[error("not in the bucket: {key}")]
    Missing {
        /// The key asked for.
        key: String,
    },
}

impl StoreError {
    /// True where the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// True where the server does not know this kind of request.
    pub fn is_not_implemented(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code == "NotImplemented",
            Self::Unreachable { cause, .. } => cause.contains("NotImplemented"),
            _ => false,
        }
    }
}

/// Sorts an SDK error into ours.
pub(super) fn sort<E>(doing: String, error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    // Answers to HEAD have no body, so neither code nor words: the status has to do.
    let code = error.code().map_or_else(|| status.map_or_else(String::new, |status| format!("HTTP {status}")), str::to_owned);
    let message = error.message().unwrap_or("the server gave no reason").to_owned();
    match status {
        Some(412) => StoreError::Precondition { doing },
        // S3 answers 409 when two conditional writes of one key race; the loser may look and decide.
        Some(409) if code == "ConditionalRequestConflict" => StoreError::Precondition { doing },
        Some(404) if code != "NoSuchBucket" && code != "NoSuchUpload" => StoreError::Missing { key: doing },
        Some(400..=499) => StoreError::Refused { doing, code, message },
        Some(_) => StoreError::Unreachable { doing, cause: format!("it answered {code}: {message}") },
        None => StoreError::Unreachable { doing, cause: chain(&error) },
    }
}

/// The error and its sources. The SDK's own way to print them adds its structures.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
