//! Which ranges of the chain need not be read, since the snapshot before holds them as they still are.
//!
//! A range is taken over if the grid and the columns are the same, its objects are stored in the size they must have, nobody
//! marked it, and its content is unchanged: either PostgreSQL's own counters show that nothing old was written, or block
//! hashes and row counts of the range are what they were. Invariant: a range that is taken over passed the audit when it was
//! cut, and its audit comes along.

use std::collections::HashSet;

use engine::{Ctx, Level, StepError};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapshot::chunk::{Chunk, Heights};
use snapshot::columns::{CHAIN_TABLES, TableShape};
use snapshot::fingerprint::{self, rows_of};
use snapshot::grid::GridRange;
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer, RangeRecord};
use snapshot::store::Store;
use snapshot::writes::{self, Writes};
use sqlx::PgConnection;

use super::dump::Dumped;
use super::plan::Plan;
use crate::newest::Reference;
use crate::services::Services;
use crate::step_error::classify;
use crate::{catalog, dirty, resealed};

/// Questions to the bucket under way at once.
const PARALLEL_HEADS: usize = 32;

/// A table of a range that is more than one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The table.
    pub table: String,
    /// The range.
    pub range: Heights,
    /// Heights of its chunks, lowest first.
    pub parts: Vec<Heights>,
}

/// The snapshot before.
pub(super) struct Base {
    reference: Reference,
    manifest: Manifest,
}

/// The chain as it is now.
pub(super) struct Now<'a> {
    pub(super) network: &'a str,
    pub(super) shapes: &'a [TableShape],
    pub(super) ranges: &'a [GridRange],
    pub(super) writes: Option<&'a Writes>,
}

/// The snapshot whose unchanged ranges may be taken over: the one that `latest` names, or a newer one that was never promoted, as
/// where drills could not be made for some nights. Behind one that was taken back or disproved there is none: an older snapshot may hold
/// rows that it had found changed.
pub(super) async fn base(services: &Services, network: &str, latest: Option<&Pointer>) -> Result<Option<Reference>, StepError> {
    let newest = catalog::newest_published(&services.control, network).await.map_err(classify)?;
    let newer = newest.filter(|newest| latest.is_none_or(|latest| newest.sequence.unsigned_abs() > latest.sequence));
    Ok(match newer {
        None => latest.map(Reference::of),
        Some(newer) => {
            newer.stands.then(|| Reference { network: network.to_owned(), id: newer.id, manifest_sha256: newer.manifest_sha256 })
        }
    })
}

impl Base {
    /// One that cannot be read is no reason to fail: everything is cut anew then.
    pub(super) async fn load(ctx: &Ctx<Services>, reference: Option<Reference>) -> Result<Option<Self>, StepError> {
        let Some(reference) = reference else { return Ok(None) };
        let found = reference.find(ctx.services()).await?;
        if found.is_none() {
            let data =
                json!({ "snapshot": reference.id, "what": "its manifest is missing or altered, so every range is cut anew" });
            ctx.event(Level::Warn, "snapshot.base_unreadable", data).await?;
        }
        Ok(found.map(|manifest| Self { reference, manifest }))
    }

    pub(super) fn into_reference(self) -> Reference {
        self.reference
    }

    /// Those of the ranges that are cut again.
    pub(super) fn recut(&self, ranges: &[GridRange], reused: &[Heights]) -> Vec<Heights> {
        let cut = ranges.iter().map(|range| range.heights).filter(|heights| !reused.contains(heights));
        cut.filter(|heights| self.manifest.ranges.iter().any(|record| record.heights == *heights)).collect()
    }

    /// How tables of the ranges that are cut again were split.
    pub(super) fn splits(&self, ranges: &[GridRange], reused: &[Heights]) -> Vec<Split> {
        let known = self.recut(ranges, reused).into_iter();
        let pairs = known.flat_map(|range| CHAIN_TABLES.iter().map(move |table| (range, table.name)));
        let split = pairs.map(|(range, table)| {
            let parts = self.manifest.chunks_in(range).filter(|chunk| chunk.table == table).filter_map(|chunk| chunk.heights);
            Split { table: table.to_owned(), range, parts: parts.collect() }
        });
        split.filter(|split| split.parts.len() > 1).collect()
    }
}

/// Ranges whose chunks can be taken over from `base`.
pub(super) async fn unchanged(
    ctx: &Ctx<Services>,
    conn: &mut PgConnection,
    base: &Base,
    now: &Now<'_>,
) -> Result<Vec<Heights>, StepError> {
    let services = ctx.services();
    let candidates = candidates(services, base, now).await?;
    let stored = stored(services, base, candidates).await?;
    let before = catalog::writes_of(&services.control, now.network, &base.reference.id).await.map_err(classify)?;
    let untouched = match (&before, now.writes) {
        (Some(before), Some(writes)) => writes::only_above(conn, before, writes).await.map_err(classify)?,
        _ => false,
    };
    let same = if untouched { stored } else { alike(conn, base, stored).await? };
    let by = if untouched { "write counters" } else { "block hashes and row counts" };
    let data = json!({ "base": base.reference.id, "ranges": now.ranges.len(), "reused": same.len(), "decidedBy": by });
    ctx.event(Level::Info, "snapshot.reuse", data).await?;
    Ok(same.into_iter().map(|record| record.heights).collect())
}

/// Ranges that the base has with the same boundaries and columns, and that nobody marked.
async fn candidates<'a>(services: &Services, base: &'a Base, now: &Now<'_>) -> Result<Vec<&'a RangeRecord>, StepError> {
    let chain = |shapes: &[TableShape]| shapes.iter().filter(|shape| shape.height.is_some()).cloned().collect::<Vec<_>>();
    if chain(&base.manifest.shapes) != chain(now.shapes) {
        return Ok(Vec::new());
    }
    let dirty = dirty::of(&services.control, now.network).await.map_err(classify)?;
    let clean = |heights: Heights| !dirty.iter().any(|mark| mark.from <= heights.to && heights.from <= mark.to);
    let wanted: HashSet<(Heights, bool)> = now.ranges.iter().map(|range| (range.heights, range.sealed)).collect();
    let records = base.manifest.ranges.iter();
    Ok(records.filter(|record| wanted.contains(&(record.heights, record.sealed)) && clean(record.heights)).collect())
}

/// Those whose chunks are all in the bucket, in the right size.
async fn stored<'a>(
    services: &Services,
    base: &Base,
    candidates: Vec<&'a RangeRecord>,
) -> Result<Vec<&'a RangeRecord>, StepError> {
    let chunks = |record: &RangeRecord| base.manifest.chunks_in(record.heights).cloned().collect::<Vec<_>>();
    let heads: Vec<_> = candidates.iter().map(|record| all_stored(services.store.clone(), chunks(record)).boxed()).collect();
    let found: Vec<bool> = stream::iter(heads).buffered(PARALLEL_HEADS).try_collect().await?;
    Ok(candidates.into_iter().zip(found).filter(|(_, stored)| *stored).map(|(record, _)| record).collect())
}

async fn all_stored(store: Store, chunks: Vec<Chunk>) -> Result<bool, StepError> {
    for chunk in chunks {
        let meta = store.head(&Key::Chunk(chunk.sha256.clone())).await.map_err(classify)?;
        if meta.is_none_or(|meta| meta.bytes != chunk.bytes) {
            tracing::warn!(chunk = chunk.file_name(), "its object is missing or of another size, cutting the range anew");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Those whose blocks and row counts are what they were.
async fn alike<'a>(
    conn: &mut PgConnection,
    base: &Base,
    records: Vec<&'a RangeRecord>,
) -> Result<Vec<&'a RangeRecord>, StepError> {
    let ranges: Vec<Heights> = records.iter().map(|record| record.heights).collect();
    let found = fingerprint::take(conn, &ranges).await.map_err(classify)?;
    let same = |record: &RangeRecord, found: &fingerprint::Fingerprint| {
        found.chain_sha256 == record.chain_sha256 && found.rows == rows_of(base.manifest.chunks_in(record.heights))
    };
    Ok(records.into_iter().zip(found).filter(|(record, found)| same(record, found)).map(|(record, _)| record).collect())
}

/// What the children of `dump` would have stored for the ranges that were not read.
pub(super) async fn taken_over(services: &Services, plan: &Plan) -> Result<Vec<Dumped>, StepError> {
    let Some(base) = &plan.base else { return Ok(Vec::new()) };
    let manifest = base.manifest(services).await?;
    let reused: HashSet<Heights> = plan.reused.iter().copied().collect();
    let records = manifest.ranges.iter().filter(|record| reused.contains(&record.heights));
    Ok(records.map(|record| take_over(&manifest, record)).collect())
}

fn take_over(base: &Manifest, record: &RangeRecord) -> Dumped {
    Dumped {
        chunks: base.chunks_in(record.heights).cloned().collect(),
        audit: record.audit,
        link: record.link.clone(),
        range: Some(GridRange { heights: record.heights, sealed: record.sealed }),
        chain_sha256: record.chain_sha256.clone(),
    }
}

/// Refers to the objects of sealed chunks that were compressed again, where they are stored as they must be.
pub(super) async fn prefer_resealed(services: &Services, chunks: &mut [Chunk]) -> Result<(), StepError> {
    let contents: Vec<String> = chunks.iter().filter(|chunk| chunk.sealed).map(|chunk| chunk.content_sha256.clone()).collect();
    let known = resealed::of(&services.control, &contents).await.map_err(classify)?;
    for chunk in chunks.iter_mut().filter(|chunk| chunk.sealed) {
        let Some(object) = known.get(&chunk.content_sha256).filter(|object| object.sha256 != chunk.sha256) else { continue };
        let meta = services.store.head(&Key::Chunk(object.sha256.clone())).await.map_err(classify)?;
        let bytes = object.bytes.unsigned_abs();
        if meta.is_some_and(|meta| meta.bytes == bytes) {
            chunk.sha256.clone_from(&object.sha256);
            chunk.bytes = bytes;
        } else {
            resealed::forget(&services.control, &chunk.content_sha256).await.map_err(classify)?;
        }
    }
    Ok(())
}
