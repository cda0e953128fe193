//! The layout of a published archive, from its manifest and its schema object alone: what the publisher laid out, byte for byte.

use std::collections::HashSet;

use super::{ArchiveFile, Layout, LayoutError};
use crate::chunk::Chunk;
use crate::manifest::Manifest;
use crate::toc;

impl Layout {
    /// Lays out the archive of a snapshot; `schema` is the manifest's schema object as it is stored.
    ///
    /// # Errors
    /// [`LayoutError`]; [`LayoutError::Other`] where the result is not of the size that the manifest says.
    pub fn of_manifest(manifest: &Manifest, schema: &[u8]) -> Result<Self, LayoutError> {
        let toc = zstd::decode_all(schema).map_err(LayoutError::Schema)?;
        let files = manifest.chunks.iter().map(file).collect::<Result<Vec<_>, _>>()?;
        let layout = Self::new(&toc, &gates(&toc, &files)?, &files, manifest.block_time)?;
        if layout.len() != manifest.size_bytes {
            return Err(LayoutError::Other { found: layout.len(), expected: manifest.size_bytes });
        }
        Ok(layout)
    }
}

/// Data files that are no chunks are the tables' gates.
fn gates(toc: &[u8], files: &[ArchiveFile]) -> Result<Vec<String>, LayoutError> {
    let chunks: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let entries = toc::read(toc)?.entries.into_iter().filter(|entry| entry.has_data);
    Ok(entries.filter_map(|entry| entry.file_name).filter(|name| !chunks.contains(name.as_str())).collect())
}

fn file(chunk: &Chunk) -> Result<ArchiveFile, LayoutError> {
    let mut sha256 = [0; 32];
    let unusable = |_| LayoutError::Name { name: chunk.sha256.clone() };
    hex::decode_to_slice(&chunk.sha256, &mut sha256).map_err(unusable)?;
    Ok(ArchiveFile { name: chunk.file_name(), sha256, bytes: chunk.bytes, raw_bytes: chunk.raw_bytes })
}
