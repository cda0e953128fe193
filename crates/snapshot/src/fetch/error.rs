//! What can go wrong with reading what is published.

use std::path::PathBuf;

use crate::encrypt::EncryptionError;
use crate::store::StoreError;

/// A published object that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address.
    #[error("`{given}` is no address that snapshots could be published at: write https://…, s3://bucket or a directory")]
    Address {
        /// What was given.
        given: String,
    },
    /// It is not there.
    #[error("{key} is missing where the snapshots are published")]
    Missing {
        /// Its key.
        key: String,
    },
    /// It is there and is not what it should be.
    #[error("{key} is damaged where it is published: {found} instead of {expected}")]
    Damaged {
        /// Its key.
        key: String,
        /// Digest or length it should have.
        expected: String,
        /// What was found.
        found: String,
    },
    /// No answer, or broken ones, however often asked.
    #[error("cannot fetch {url} ({tries} tries): {cause}")]
    Unreachable {
        /// The address.
        url: String,
        /// How often it was tried without progress.
        tries: u32,
        /// The last failure.
        cause: String,
    },
    /// The server does not want to.
    #[error("{url} is refused with HTTP status {status}")]
    Refused {
        /// The address.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// It is encrypted, and stays so.
    #[error("cannot decrypt {key}")]
    Closed {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: EncryptionError,
    },
    /// The bucket's answer.
    #[error("the bucket failed")]
    Store(#[from] StoreError),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl FetchError {
    /// True where the same command may succeed later.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// True where what is published is itself at fault, and not the way to it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. })
    }

    /// True where the server does not say whether there is such an object: this reader may not know.
    #[must_use]
    pub(crate) fn is_forbidden(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == 403,
            Self::Store(StoreError::Refused { code, .. }) => code == "AccessDenied" || code == "HTTP 403",
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_hides_whether_there_is_an_object_is_forbidden() {
        let http = |status| FetchError::Refused { url: String::new(), status };
        let bucket = |code: &str| {
            FetchError::Store(StoreError::Refused { doing: String::new(), code: code.into(), message: String::new() })
        };
        assert!(http(403).is_forbidden() && bucket("AccessDenied").is_forbidden() && bucket("HTTP 403").is_forbidden());
        assert!(!http(400).is_forbidden() && !bucket("InvalidAccessKeyId").is_forbidden());
    }
}
