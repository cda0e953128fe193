//! What of a snapshot is wanted: all of it, a range of heights, some tables.

use serde::{Deserialize, Serialize};

use super::LoadError;
use crate::chunk::{Chunk, Heights};
use crate::manifest::Manifest;

/// What of a snapshot is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Only these heights.
    pub heights: Option<Heights>,
    /// Only rows of these tables; the others are made, and stay empty.
    pub tables: Option<Vec<String>>,
}

/// A chunk, or the rows of it that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The chunk.
    pub chunk: Chunk,
    /// Heights to take, where not all of it is wanted.
    pub within: Option<Heights>,
}

impl Selection {
    /// True for the whole snapshot.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// True if rows of the table are wanted.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.iter().any(|name| name == table))
    }

    /// The chunks to load, in load order.
    ///
    /// # Errors
    /// [`LoadError::Selection`] for a table or heights that the snapshot does not have.
    pub fn parts(&self, manifest: &Manifest) -> Result<Vec<Part>, LoadError> {
        self.check(manifest)?;
        let wanted = manifest.chunks.iter().filter(|chunk| self.has_table(&chunk.table));
        Ok(wanted.filter_map(|chunk| self.part(chunk)).collect())
    }

    fn part(&self, chunk: &Chunk) -> Option<Part> {
        let whole = Part { chunk: chunk.clone(), within: None };
        let (Some(wanted), Some(has)) = (self.heights, chunk.heights) else { return Some(whole) };
        if wanted.from <= has.from && has.to <= wanted.to {
            return Some(whole);
        }
        let within = Heights { from: wanted.from.max(has.from), to: wanted.to.min(has.to) };
        (within.from <= within.to).then_some(Part { within: Some(within), ..whole })
    }

    fn check(&self, manifest: &Manifest) -> Result<(), LoadError> {
        for table in self.tables.iter().flatten() {
            if !manifest.shapes.iter().any(|shape| shape.name == *table) {
                let known: Vec<&str> = manifest.shapes.iter().map(|shape| shape.name.as_str()).collect();
                return Err(LoadError::Selection(format!(
                    "the snapshot has no rows of a table {table}; it has {}",
                    known.join(", ")
                )));
            }
        }
        match self.heights {
            Some(Heights { from, to }) if from > to || from > manifest.coverage.to || to < manifest.coverage.from => {
                Err(LoadError::Selection(format!("the snapshot holds the heights {}, none of {from}..={to}", manifest.coverage)))
            }
            _ => Ok(()),
        }
    }

    /// The highest block that will be there.
    #[must_use]
    pub fn height(&self, manifest: &Manifest) -> u64 {
        self.heights.map_or(manifest.block_height, |heights| heights.to.min(manifest.block_height))
    }
}
