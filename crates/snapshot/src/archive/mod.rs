//! The full archive `.tar.zst` as a splice: chunks as they are stored, between small zstd frames that hold what tar adds.
//!
//! Not a compressor or a copier of chunk data: it knows lengths and digests only, never a chunk's bytes.
//!
//! Invariant: the concatenation of the segments is a zstd stream whose content is a ustar archive of `snapshot/`; it depends on
//! the arguments alone, so that any byte range can be computed again by anyone, at any time, without touching data.
//!
//! Formats: POSIX.1-1988 ustar (sizes from 8 GiB on as base-256, which GNU tar, bsdtar and busybox read); RFC 8878 allows
//! concatenated frames.

mod glue;
mod published;

use std::collections::HashSet;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::toc::TocError;
use glue::Glue;

/// Folder that the archive extracts to; the restore instructions name it.
const FOLDER: &str = "snapshot/";
/// End of a COPY file. `pg_restore` into a database does without, its script output does not.
const TERMINATOR: &[u8] = b"\\.\n\n\n";
/// Two empty blocks end a tar file.
const END: [u8; 1024] = [0; 1024];

/// A file of the archive that is one stored chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Name inside the folder.
    pub name: String,
    /// sha256 of the stored object.
    pub sha256: [u8; 32],
    /// Length of the stored object in bytes.
    pub bytes: u64,
    /// Length of its content in bytes, without a COPY terminator.
    pub raw_bytes: u64,
}

/// A piece of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A complete zstd frame.
    Glue(Bytes),
    /// A stored object, whole.
    Chunk {
        /// sha256 of the object.
        sha256: [u8; 32],
        /// Length of the object in bytes.
        bytes: u64,
    },
}

impl Segment {
    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Glue(frame) => frame.len() as u64,
            Self::Chunk { bytes, .. } => *bytes,
        }
    }
}

/// A part of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice<'a> {
    /// The segment.
    pub segment: &'a Segment,
    /// Bytes of it, counted from its own start; never empty.
    pub range: Range<u64>,
}

/// Why an archive cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A name that is no plain file name, is too long for tar, or appears twice.
    #[error("archive file name {name:?} is not usable: names must be plain, unique and at most 91 bytes long")]
    Name {
        /// The name.
        name: String,
    },
    /// A chunk without bytes: not even an empty zstd frame.
    #[error("archive file {name} has no stored bytes: cut its chunk again")]
    EmptyObject {
        /// The name.
        name: String,
    },
    /// zstd refused.
    #[error("cannot compress an archive frame")]
    Compress(#[source] io::Error),
    /// The stored table of contents is no zstd stream.
    #[error("the schema object of the archive cannot be read")]
    Schema(#[source] io::Error),
    /// The table of contents is none.
    #[error("the table of contents of the archive cannot be read")]
    Toc(#[from] TocError),
    /// Another program, or another version of it, laid it out.
    #[error("the archive would have {found} bytes, its manifest says {expected}: use the program that made it")]
    Other {
        /// Its length, bytes.
        found: u64,
        /// What the manifest says.
        expected: u64,
    },
}

/// Where each byte of an archive comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    /// Where segment `i` ends in the archive.
    ends: Vec<u64>,
    tar_bytes: u64,
}

impl Layout {
    /// Lays out `toc.dat`, the `empty` files (tables' gates) and then `files`, in the order given.
    ///
    /// `modified_at` is every entry's time in unix seconds.
    ///
    /// # Errors
    /// [`LayoutError`] for unusable names, chunks of no bytes, and if zstd fails.
    pub fn new(toc: &[u8], empty: &[String], files: &[ArchiveFile], modified_at: u64) -> Result<Self, LayoutError> {
        check(empty, files)?;
        let mut glue = Glue::new(modified_at)?;
        glue.folder();
        glue.file("toc.dat", toc)?;
        for name in empty {
            glue.file(name, TERMINATOR)?;
        }
        let mut layout = Self { segments: Vec::with_capacity(2 * files.len() + 1), ends: Vec::new(), tar_bytes: 0 };
        for file in files {
            let size = file.raw_bytes + TERMINATOR.len() as u64;
            glue.header(&file.name, size)?;
            layout.push(glue.frame()?);
            layout.push(Segment::Chunk { sha256: file.sha256, bytes: file.bytes });
            glue.tar_bytes += file.raw_bytes;
            glue.put(TERMINATOR);
            glue.pad(size);
        }
        glue.put(&END);
        layout.push(glue.frame()?);
        layout.tar_bytes = glue.tar_bytes;
        Ok(layout)
    }

    /// Length of the archive in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no archive is empty")]
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Length of the tar file inside, in bytes: what extracting takes on a disk, but for the folder and rounding.
    #[must_use]
    pub fn tar_len(&self) -> u64 {
        self.tar_bytes
    }

    /// All segments in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What makes up the bytes `range` of the archive, in order; what lies behind its end is left out.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Vec<Slice<'_>> {
        let end = range.end.min(self.len());
        let first = self.ends.partition_point(|&segment_end| segment_end <= range.start);
        let mut slices = Vec::new();
        for (segment, &segment_end) in self.segments.iter().zip(&self.ends).skip(first) {
            let segment_start = segment_end - segment.len();
            if segment_start >= end || range.start >= end {
                break;
            }
            let from = range.start.max(segment_start) - segment_start;
            slices.push(Slice { segment, range: from..end.min(segment_end) - segment_start });
        }
        slices
    }

    fn push(&mut self, segment: Segment) {
        self.ends.push(self.len() + segment.len());
        self.segments.push(segment);
    }
}

fn check(empty: &[String], files: &[ArchiveFile]) -> Result<(), LayoutError> {
    if let Some(file) = files.iter().find(|file| file.bytes == 0) {
        return Err(LayoutError::EmptyObject { name: file.name.clone() });
    }
    let mut taken = HashSet::from(["toc.dat"]);
    for name in empty.iter().chain(files.iter().map(|file| &file.name)) {
        // Longer names would need tar's split prefix, which not every reader of ours has to know.
        let usable = !name.is_empty()
            && name.len() + FOLDER.len() <= 100
            && !name.contains(['/', '\\', '\0'])
            && ![".", ".."].contains(&name.as_str());
        if !usable || !taken.insert(name.as_str()) {
            return Err(LayoutError::Name { name: name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Read;

    use super::*;

    /// Layout and objects for these contents; digests are made up, since nothing here depends on them.
    fn sample(contents: &[&[u8]]) -> (Layout, HashMap<[u8; 32], Vec<u8>>) {
        let mut objects = HashMap::new();
        let mut files = Vec::new();
        for (index, content) in contents.iter().enumerate() {
            let object = zstd::encode_all(*content, 3).expect("zstd");
            let sha256 = [u8::try_from(index).expect("few"); 32];
            files.push(ArchiveFile {
                name: format!("events-{index:010}.dat"),
                sha256,
                bytes: object.len() as u64,
                raw_bytes: content.len() as u64,
            });
            objects.insert(sha256, object);
        }
        let layout = Layout::new(b"PGDMP", &["events-gate.dat".into()], &files, 1_735_689_600).expect("a layout");
        (layout, objects)
    }

    fn fetch(layout: &Layout, objects: &HashMap<[u8; 32], Vec<u8>>, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        for slice in layout.read(range) {
            let whole: &[u8] = match slice.segment {
                Segment::Glue(frame) => frame,
                Segment::Chunk { sha256, .. } => &objects[sha256],
            };
            assert!(!slice.range.is_empty());
            out.extend_from_slice(&whole[slice.range.start as usize..slice.range.end as usize]);
        }
        out
    }

    #[test]
    fn the_archive_is_a_tar_of_all_files_with_terminators() {
        let block = vec![b'x'; 507];
        let (layout, objects) = sample(&[b"1\tone\n", b"", &block]);
        let archive = fetch(&layout, &objects, 0..layout.len());
        let tar_bytes = zstd::decode_all(archive.as_slice()).expect("frames decode");
        assert_eq!(tar_bytes.len() as u64, layout.tar_len());
        assert!(tar_bytes.ends_with(&END));
        let mut tar = tar::Archive::new(tar_bytes.as_slice());
        let mut found = Vec::new();
        for entry in tar.entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let header = entry.header();
            assert_eq!((header.uid().expect("uid"), header.gid().expect("gid")), (0, 0));
            assert_eq!(header.mtime().expect("mtime"), 1_735_689_600);
            let mode = header.mode().expect("mode");
            let path = entry.path().expect("path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            found.push((path, mode, content));
        }
        let with_end = |content: &[u8]| [content, TERMINATOR].concat();
        assert_eq!(
            found,
            [
                ("snapshot/".into(), 0o755, vec![]),
                ("snapshot/toc.dat".into(), 0o644, b"PGDMP".to_vec()),
                ("snapshot/events-gate.dat".into(), 0o644, with_end(b"")),
                ("snapshot/events-0000000000.dat".into(), 0o644, with_end(b"1\tone\n")),
                ("snapshot/events-0000000001.dat".into(), 0o644, with_end(b"")),
                ("snapshot/events-0000000002.dat".into(), 0o644, with_end(&block)),
            ]
        );
    }

    #[test]
    fn every_range_equals_the_same_bytes_of_the_whole() {
        let (layout, objects) = sample(&[b"1\n", b"2\n"]);
        let whole = fetch(&layout, &objects, 0..layout.len());
        assert_eq!(whole.len() as u64, layout.len());
        for start in 0..=layout.len() {
            for end in start..=layout.len() {
                assert_eq!(fetch(&layout, &objects, start..end), whole[start as usize..end as usize]);
            }
        }
        assert_eq!(fetch(&layout, &objects, 3..u64::MAX), whole[3..]);
        assert!(layout.read(layout.len()..u64::MAX).is_empty());
        let (later, earlier) = (5, 4);
        assert!(layout.read(later..earlier).is_empty());
    }

    #[test]
    fn thousands_of_chunks_lay_out_and_read_without_data() {
        let files: Vec<_> = (0..5_300_u64)
            .map(|index| ArchiveFile {
                name: format!("events-{index:010}.dat"),
                sha256: [0; 32],
                bytes: 10_000_000,
                raw_bytes: 50_000_000 + index,
            })
            .collect();
        let layout = Layout::new(&[0; 1_000_000], &[], &files, 0).expect("a layout");
        assert_eq!(layout, Layout::new(&[0; 1_000_000], &[], &files, 0).expect("the same layout"));
        assert_eq!(layout.segments().len(), 2 * 5_300 + 1);
        let part = 64 << 20;
        let parts: u64 = (0..layout.len().div_ceil(part))
            .flat_map(|k| layout.read(k * part..(k + 1) * part))
            .map(|slice| slice.range.end - slice.range.start)
            .sum();
        assert_eq!(parts, layout.len());
    }

    #[test]
    fn a_file_of_more_than_8_gib_has_a_size_that_tar_reads() {
        let raw_bytes = 9 << 30;
        let file = ArchiveFile { name: "big.dat".into(), sha256: [1; 32], bytes: 1, raw_bytes };
        let layout = Layout::new(b"", &[], &[file], 0).expect("a layout");
        let Some(Segment::Glue(first)) = layout.segments().first() else { panic!("glue comes first") };
        let tar_bytes = zstd::decode_all(first.as_ref()).expect("a frame");
        let header = tar::Header::from_byte_slice(&tar_bytes[1024..1536]);
        assert_eq!(header.size().expect("a size"), raw_bytes + 5);
        assert!(layout.tar_len() > raw_bytes);
    }

    #[test]
    fn unusable_names_are_refused() {
        let named = |name: &str| {
            let file = ArchiveFile { name: name.into(), sha256: [0; 32], bytes: 1, raw_bytes: 1 };
            Layout::new(b"", &["gate.dat".into()], &[file], 0)
        };
        for name in ["", "a/b", "..", "toc.dat", "gate.dat", &"x".repeat(92)] {
            assert!(matches!(named(name), Err(LayoutError::Name { .. })), "{name}");
        }
        assert!(named(&"x".repeat(91)).is_ok());
    }
}
