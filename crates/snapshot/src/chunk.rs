//! A chunk: the rows of one table in one height range, as ordered COPY text in one zstd frame, named by its sha256.

use serde::{Deserialize, Serialize};

/// One chunk as manifests list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Table, as [`crate::columns::TableShape::name`] spells it.
    pub table: String,
    /// Heights it covers, or `None` for a small table that is one chunk.
    pub heights: Option<Heights>,
    /// Which part of its table, where a table without heights is more than one chunk; from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub part: u32,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of COPY text.
    pub raw_bytes: u64,
    /// Bytes of the stored object.
    pub bytes: u64,
    /// sha256 (hex) of the stored object: its name in the bucket.
    pub sha256: String,
    /// sha256 (hex) of the COPY text: equal for equal rows, whatever compressed them.
    pub content_sha256: String,
    /// True once its range is full and final: boundaries never move again.
    pub sealed: bool,
}

/// An inclusive range of block heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Heights {
    /// First height.
    pub from: u64,
    /// Last height.
    pub to: u64,
}

impl Heights {
    /// Number of heights in the range.
    pub fn len(&self) -> u64 {
        self.to - self.from + 1
    }

    /// A range holds at least one height.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The two halves, or `None` for a single height.
    pub fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.from + (self.to - self.from) / 2;
        (self.from < self.to).then_some((Self { from: self.from, to: middle }, Self { from: middle + 1, to: self.to }))
    }
}

impl std::fmt::Display for Heights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..={}", self.from, self.to)
    }
}

impl Chunk {
    /// Name of the file in the archive, for example `events-0000050000-0000054999.dat`.
    pub fn file_name(&self) -> String {
        match self.heights {
            Some(Heights { from, to }) => format!("{}-{from:010}-{to:010}.dat", self.table),
            None if self.part > 0 => format!("{}-{:06}.dat", self.table, self.part),
            None => format!("{}.dat", self.table),
        }
    }
}

fn is_first(part: &u32) -> bool {
    *part == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_covers_every_height_once() {
        let (left, right) = Heights { from: 5, to: 9 }.halves().unwrap();
        assert_eq!((left, right), (Heights { from: 5, to: 7 }, Heights { from: 8, to: 9 }));
        assert_eq!(Heights { from: 5, to: 5 }.halves(), None);
    }
}
