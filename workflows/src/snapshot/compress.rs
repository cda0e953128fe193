//! Step `compress`: joins the ranges into one chain, makes the archive's `toc.dat`, and lays out the splice.
//!
//! The rows were compressed when they were cut; the archive is their frames between small frames of tar headers, so
//! nothing is compressed again. The `toc.dat` is stored like a chunk: from it and the list of chunks anybody can lay out
//! the same archive, byte for byte.

use std::io;

use bytes::Bytes;
use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::archive::{ArchiveFile, Layout};
use snapshot::audit::Audit;
use snapshot::chunk::Chunk;
use snapshot::cut::LEVEL;
use snapshot::key::Key;
use snapshot::manifest::{RangeRecord, SchemaObject};
use snapshot::schema::dump_schema;
use snapshot::toc::{self, DataFile};

use super::dump::Dumped;
use super::plan::Plan;
use super::reuse;
use crate::services::Services;
use crate::step_error::classify;

/// The archive as it will be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spliced {
    /// Chunks in load order.
    pub(super) chunks: Vec<Chunk>,
    /// The stored `toc.dat`.
    pub(super) schema: SchemaObject,
    /// Names of the empty files of the gate entries.
    gates: Vec<String>,
    /// Ranges of heights, lowest first.
    pub(super) ranges: Vec<RangeRecord>,
    /// Counts over all rows.
    pub(super) audit: Audit,
    /// Size of the archive.
    pub(super) archive_bytes: u64,
    /// Size of the extracted directory's tar.
    pub(super) raw_bytes: u64,
}

pub(super) async fn run(ctx: Ctx<Services>, mut dumped: Vec<Dumped>) -> Result<Spliced, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let services = ctx.services();
    dumped.extend(reuse::taken_over(services, &plan).await?);
    dumped.sort_by_key(|child| child.range.map(|range| range.heights));
    one_chain(&plan, &dumped)?;
    let mut audit = Audit::default();
    dumped.iter().for_each(|child| audit += child.audit);
    let ranges = dumped.iter().filter_map(Dumped::record).collect();
    let mut chunks = in_load_order(&plan, dumped);
    reuse::prefer_resealed(services, &mut chunks).await?;

    let schema = dump_schema(&services.pg_dump, &services.indexed_url).await.map_err(StepError::retry)?;
    let files: Vec<DataFile> = chunks.iter().map(|chunk| data_file(&plan, chunk)).collect();
    let toc = toc::build(&schema, &files, plan.facts.timestamp).map_err(StepError::fail)?;
    let schema = store_toc(services, &toc.bytes).await?;
    let mut spliced = Spliced { chunks, schema, gates: toc.gates, ranges, audit, archive_bytes: 0, raw_bytes: 0 };
    let layout = spliced.layout(&plan, &toc.bytes)?;
    spliced.archive_bytes = layout.len();
    spliced.raw_bytes = layout.tar_len();
    Ok(spliced)
}

impl Spliced {
    /// The archive's layout, which the steps after this one stream.
    pub(super) async fn fetch_layout(&self, services: &Services, plan: &Plan) -> Result<Layout, StepError> {
        let key = Key::Chunk(self.schema.sha256.clone());
        let object = services.store.get(&key).await.map_err(classify)?;
        let (compressed, _) =
            object.ok_or_else(|| StepError::fail(io::Error::other(format!("{key} is gone from the bucket"))))?;
        let toc = zstd::decode_all(&compressed[..]).map_err(StepError::fail)?;
        self.layout(plan, &toc)
    }

    fn layout(&self, plan: &Plan, toc: &[u8]) -> Result<Layout, StepError> {
        let files = self.chunks.iter().map(archive_file).collect::<Result<Vec<_>, _>>()?;
        Layout::new(toc, &self.gates, &files, plan.facts.timestamp).map_err(StepError::fail)
    }
}

impl Dumped {
    fn record(&self) -> Option<RangeRecord> {
        self.range.map(|range| RangeRecord {
            heights: range.heights,
            sealed: range.sealed,
            chain_sha256: self.chain_sha256.clone(),
            link: self.link.clone(),
            audit: self.audit,
        })
    }
}

/// Ranges were read at different moments: they are one chain only if each names the end of the one below.
fn one_chain(plan: &Plan, dumped: &[Dumped]) -> Result<(), StepError> {
    let mut below: Option<&str> = None;
    for child in dumped.iter().filter(|child| !child.link.last_hash.is_empty()) {
        if below.is_some_and(|hash| hash != child.link.first_parent) {
            return Err(changed(plan, "two ranges do not join"));
        }
        below = Some(&child.link.last_hash);
    }
    if below != Some(plan.facts.hash.as_str()) {
        return Err(changed(plan, "the highest block is another one"));
    }
    Ok(())
}

fn changed(plan: &Plan, what: &str) -> StepError {
    let height = plan.facts.height;
    StepError::fail(io::Error::other(format!(
        "the chain changed at or below height {height} while it was read ({what}); run again, or raise --confirmations"
    )))
}

fn in_load_order(plan: &Plan, dumped: Vec<Dumped>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = dumped.into_iter().flat_map(|child| child.chunks).collect();
    let rank = |table: &str| plan.shapes.iter().position(|shape| shape.name == table);
    chunks.sort_by_key(|chunk| (rank(&chunk.table), chunk.heights));
    chunks
}

fn data_file(plan: &Plan, chunk: &Chunk) -> DataFile {
    let columns = plan.shapes.iter().find(|shape| shape.name == chunk.table).map(|shape| shape.columns.clone());
    DataFile { table: chunk.table.clone(), columns: columns.unwrap_or_default(), name: chunk.file_name() }
}

fn archive_file(chunk: &Chunk) -> Result<ArchiveFile, StepError> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&chunk.sha256, &mut sha256).map_err(StepError::fail)?;
    Ok(ArchiveFile { name: chunk.file_name(), sha256, bytes: chunk.bytes, raw_bytes: chunk.raw_bytes })
}

async fn store_toc(services: &Services, toc: &[u8]) -> Result<SchemaObject, StepError> {
    let compressed = Bytes::from(zstd::encode_all(toc, LEVEL).map_err(StepError::fail)?);
    let sha256 = hex::encode(Sha256::digest(&compressed));
    services.store.put_new(&Key::Chunk(sha256.clone()), compressed).await.map_err(classify)?;
    Ok(SchemaObject { sha256, content_sha256: hex::encode(Sha256::digest(toc)), raw_bytes: toc.len() as u64 })
}
