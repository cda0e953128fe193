//! The tar bytes between two chunks, compressed frame by frame.
//!
//! Not the archive: in which order files come is decided by the layout.
//!
//! Invariant: the frames depend on what was put, and in which order, alone.

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::{FOLDER, LayoutError, Segment};

/// Unit of a tar file.
const BLOCK: u64 = 512;
/// Level of the glue frames. Fixed, since another level would change the archive's digest; small, since glue is mostly zeros.
const LEVEL: i32 = 3;

/// Gathers tar bytes between two chunks.
pub(super) struct Glue {
    pending: Vec<u8>,
    /// Length of the tar file so far, chunk contents included.
    pub(super) tar_bytes: u64,
    modified_at: u64,
    compressor: Compressor<'static>,
}

impl Glue {
    pub(super) fn new(modified_at: u64) -> Result<Self, LayoutError> {
        let mut compressor = Compressor::new(LEVEL).map_err(LayoutError::Compress)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(LayoutError::Compress)?;
        Ok(Self { pending: Vec::new(), tar_bytes: 0, modified_at, compressor })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        self.tar_bytes += bytes.len() as u64;
    }

    /// Fills the last block of a file of `size` bytes.
    pub(super) fn pad(&mut self, size: u64) {
        let rest = (BLOCK - size % BLOCK) % BLOCK;
        self.pending.resize(self.pending.len() + rest as usize, 0);
        self.tar_bytes += rest;
    }

    pub(super) fn folder(&mut self) {
        let mut header = self.entry(0);
        header.set_entry_type(tar::EntryType::Directory);
        // A folder without x could not be entered by the user who extracts it.
        header.set_mode(0o755);
        header.set_path(FOLDER).expect("a short constant path fits");
        header.set_cksum();
        self.put(header.as_bytes());
    }

    pub(super) fn header(&mut self, name: &str, size: u64) -> Result<(), LayoutError> {
        let mut header = self.entry(size);
        header.set_path(format!("{FOLDER}{name}")).map_err(|_| LayoutError::Name { name: name.to_owned() })?;
        header.set_cksum();
        self.put(header.as_bytes());
        Ok(())
    }

    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> Result<(), LayoutError> {
        let size = content.len() as u64;
        self.header(name, size)?;
        self.put(content);
        self.pad(size);
        Ok(())
    }

    fn entry(&self, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.modified_at);
        header.set_size(size);
        header
    }

    pub(super) fn frame(&mut self) -> Result<Segment, LayoutError> {
        let frame = self.compressor.compress(&self.pending).map_err(LayoutError::Compress)?;
        self.pending.clear();
        Ok(Segment::Glue(Bytes::from(frame)))
    }
}
