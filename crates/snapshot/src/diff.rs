//! What differs between two snapshots, from their manifests and schema objects.
//!
//! Chunks are compared by the digest of their rows: a chunk that was only compressed again does not differ. Since boundaries
//! of sealed ranges never move, what differs is what was written in between, and the tail.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::chunk::{Chunk, Heights};
use crate::manifest::{Manifest, SchemaObject};
use crate::schema_object::SchemaObjectError;

/// The way from one snapshot to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The snapshot to start from.
    pub from: Side,
    /// The snapshot to arrive at.
    pub to: Side,
    /// By table, in load order.
    pub tables: Vec<TableDiff>,
    /// Heights in which rows differ, merged, lowest first.
    pub heights: Vec<Heights>,
    /// Chunks of `to` whose rows `from` has not.
    pub chunks_added: u64,
    /// Chunks of `from` whose rows `to` has not.
    pub chunks_removed: u64,
    /// Chunks with the same rows in both.
    pub chunks_same: u64,
    /// Stored bytes of the added chunks: what somebody who has `from` must fetch.
    pub bytes_added: u64,
    /// Whether the schema section differs.
    pub schema_changed: bool,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Its id.
    pub id: String,
    /// Its sequence number.
    pub sequence: u64,
    /// Its highest block.
    pub block_height: u64,
    /// Hash of that block.
    pub block_hash: String,
    /// Rows in it.
    pub rows: u64,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableDiff {
    /// Its name.
    pub table: String,
    /// Rows in the first snapshot.
    pub rows_from: u64,
    /// Rows in the second.
    pub rows_to: u64,
    /// Chunks of the second whose rows the first has not.
    pub chunks_added: u64,
    /// Chunks of the first whose rows the second has not.
    pub chunks_removed: u64,
    /// Stored bytes of the added chunks.
    pub bytes_added: u64,
}

/// Whether two schema objects define different things. They name the chunks of their snapshots as well, and those do not count.
///
/// # Errors
/// [`SchemaObjectError`].
pub fn schemas_differ(from: (&SchemaObject, &[u8]), to: (&SchemaObject, &[u8])) -> Result<bool, SchemaObjectError> {
    let says = |(schema, object): (&SchemaObject, &[u8])| -> Result<Vec<_>, SchemaObjectError> {
        let all = schema.definitions(object)?.into_iter();
        Ok(all.map(|entry| [entry.desc, entry.namespace, entry.tag, entry.definition]).collect())
    };
    Ok(says(from)? != says(to)?)
}

/// Compares two snapshots; whether their schemas differ is the caller's to say, since manifests do not.
pub fn between(from: &Manifest, to: &Manifest, schema_changed: bool) -> Diff {
    let (before, after) = (contents(from), contents(to));
    let added: Vec<&Chunk> = after.iter().filter(|(key, _)| !before.contains_key(*key)).map(|(_, chunk)| *chunk).collect();
    let removed: Vec<&Chunk> = before.iter().filter(|(key, _)| !after.contains_key(*key)).map(|(_, chunk)| *chunk).collect();
    let mut names: Vec<&str> = to.shapes.iter().map(|shape| shape.name.as_str()).collect();
    names.extend(from.shapes.iter().map(|shape| shape.name.as_str()).filter(|name| !to.tables.contains_key(*name)));
    Diff {
        from: side(from),
        to: side(to),
        tables: names.iter().map(|table| table_diff(table, (from, to), &added, &removed)).collect(),
        heights: merged(added.iter().chain(&removed).filter_map(|chunk| chunk.heights).collect()),
        chunks_added: added.len() as u64,
        chunks_removed: removed.len() as u64,
        chunks_same: (after.len() - added.len()) as u64,
        bytes_added: added.iter().map(|chunk| chunk.bytes).sum(),
        schema_changed,
    }
}

/// A chunk is known by its table, its heights and its rows.
fn contents(manifest: &Manifest) -> BTreeMap<(&str, Option<Heights>, &str), &Chunk> {
    manifest.chunks.iter().map(|chunk| ((chunk.table.as_str(), chunk.heights, chunk.content_sha256.as_str()), chunk)).collect()
}

fn side(manifest: &Manifest) -> Side {
    Side {
        id: manifest.snapshot_id.clone(),
        sequence: manifest.sequence,
        block_height: manifest.block_height,
        block_hash: manifest.block_hash.clone(),
        rows: manifest.tables.values().map(|table| table.rows).sum(),
    }
}

fn table_diff(table: &str, sides: (&Manifest, &Manifest), added: &[&Chunk], removed: &[&Chunk]) -> TableDiff {
    let rows = |manifest: &Manifest| manifest.tables.get(table).map_or(0, |totals| totals.rows);
    let of = |chunks: &[&Chunk]| chunks.iter().filter(|chunk| chunk.table == table).count() as u64;
    TableDiff {
        table: table.to_owned(),
        rows_from: rows(sides.0),
        rows_to: rows(sides.1),
        chunks_added: of(added),
        chunks_removed: of(removed),
        bytes_added: added.iter().filter(|chunk| chunk.table == table).map(|chunk| chunk.bytes).sum(),
    }
}

/// Joins ranges that touch or overlap.
fn merged(ranges: BTreeSet<Heights>) -> Vec<Heights> {
    let mut merged: Vec<Heights> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.from <= last.to.saturating_add(1) => last.to = last.to.max(range.to),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let range = |from, to| Heights { from, to };
        let ranges = [range(0, 9), range(10, 19), range(15, 17), range(30, 39)];
        assert_eq!(merged(ranges.into()), [range(0, 19), range(30, 39)]);
        assert_eq!(merged(BTreeSet::new()), []);
    }
}
