//! The schema object of a snapshot: its archive's `toc.dat`, compressed with zstd. It lists definitions, and the rows of each chunk.

use sha2::{Digest, Sha256};

use crate::manifest::SchemaObject;
use crate::toc::{self, Section, TocEntry, TocError};

/// A schema object that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaObjectError {
    /// It is not what its manifest says.
    #[error("the schema of the snapshot is damaged: expected {expected}, found {found}")]
    Damaged {
        /// sha256 (hex) of the `toc.dat` that the manifest names.
        expected: String,
        /// The digest that was found, or why there is none.
        found: String,
    },
    /// It is no `toc.dat`.
    #[error("the schema of the snapshot cannot be read")]
    Toc(#[from] TocError),
}

impl SchemaObject {
    /// Everything that `object` lists, once its content is what the manifest says.
    ///
    /// # Errors
    /// [`SchemaObjectError`].
    pub fn entries(&self, object: &[u8]) -> Result<Vec<TocEntry>, SchemaObjectError> {
        let damaged = |found| SchemaObjectError::Damaged { expected: self.content_sha256.clone(), found };
        let limit = usize::try_from(self.raw_bytes).unwrap_or(usize::MAX);
        let text = zstd::bulk::decompress(object, limit).map_err(|error| damaged(error.to_string()))?;
        let found = hex::encode(Sha256::digest(&text));
        if found != self.content_sha256 {
            return Err(damaged(found));
        }
        Ok(toc::read(&text)?.entries)
    }

    /// What `object` defines. Its rows change with every snapshot, its definitions hardly ever.
    ///
    /// # Errors
    /// [`SchemaObjectError`].
    pub fn definitions(&self, object: &[u8]) -> Result<Vec<TocEntry>, SchemaObjectError> {
        Ok(self.entries(object)?.into_iter().filter(|entry| entry.section != Section::Data).collect())
    }
}
