//! Step `upload`: streams the archive from chunks into a multipart upload, while `checksum` proves the same chunks.
//!
//! The upload's id and the parts the server has acknowledged are in the control database, so an attempt after a crash
//! sends only what is missing. The parts are invisible until `publish`, which knows that the chunks are what they should be,
//! completes the upload. Invariant: an object under the archive's key is the whole archive.

use engine::{Ctx, StepError};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use snapshot::archive::Layout;
use snapshot::assemble;
use snapshot::key::Key;
use snapshot::manifest::Archive;
use snapshot::store::{CompletedPart, StoreError, part_bytes};

use super::compress::Spliced;
use super::plan::Plan;
use crate::catalog;
use crate::figures::Phase;
use crate::services::Services;
use crate::step_error::classify;

/// Parts under way at once; each is held in memory.
const PARALLEL_PARTS: usize = 2;

/// An archive whose parts are stored, or are not meant to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Its size in bytes.
    pub(super) bytes: u64,
}

pub(super) async fn run(ctx: Ctx<Services>, spliced: Spliced) -> Result<Sent, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    if plan.archive == Archive::OnRequest {
        return Ok(Sent { bytes: spliced.archive_bytes });
    }
    let layout = spliced.fetch_layout(ctx.services(), &plan).await?;
    let (key, bytes) = (Key::Archive(plan.path()), layout.len());
    if !is_there(ctx.services(), &key, bytes).await? {
        Upload::resume_or_begin(ctx.services(), key, layout).await?.send_missing(&ctx).await?;
    }
    Ok(Sent { bytes })
}

/// Makes the archive visible, all at once. Parts that the server has lost since they were sent are sent again.
pub(super) async fn complete(ctx: &Ctx<Services>, plan: &Plan, spliced: &Spliced) -> Result<(), StepError> {
    let services = ctx.services();
    let layout = spliced.fetch_layout(services, plan).await?;
    let (key, bytes) = (Key::Archive(plan.path()), layout.len());
    if !is_there(services, &key, bytes).await? {
        let upload = Upload::resume_or_begin(services, key.clone(), layout).await?;
        let parts = upload.send_missing(ctx).await?;
        upload.complete(services, &parts).await?;
        if !is_there(services, &key, bytes).await? {
            return Err(StepError::retry(StoreError::Missing { key: key.to_string() }));
        }
    }
    catalog::end_upload(&services.control, &key.to_string()).await.map_err(classify)
}

/// True if the archive is stored. Its key belongs to this run alone, so another size means another program wrote it.
async fn is_there(services: &Services, key: &Key, bytes: u64) -> Result<bool, StepError> {
    match services.store.head(key).await.map_err(classify)? {
        None => Ok(false),
        Some(meta) if meta.bytes == bytes => Ok(true),
        Some(meta) => Err(StepError::fail(std::io::Error::other(format!(
            "{key} exists already with {} bytes instead of {bytes}; does another service publish into this bucket?",
            meta.bytes
        )))),
    }
}

struct Upload {
    key: Key,
    layout: Layout,
    id: String,
    part_bytes: u64,
    acknowledged: Vec<CompletedPart>,
}

impl Upload {
    async fn resume_or_begin(services: &Services, key: Key, layout: Layout) -> Result<Self, StepError> {
        if let Some(row) = catalog::upload_of(&services.control, &key.to_string()).await.map_err(classify)? {
            let part_bytes = row.part_bytes.unsigned_abs();
            return Ok(Self { key, layout, id: row.upload_id, part_bytes, acknowledged: row.parts.0 });
        }
        let part_bytes = part_bytes(layout.len());
        let id = services.store.create_upload(&key).await.map_err(classify)?;
        catalog::begin_upload(&services.control, &key.to_string(), &id, part_bytes).await.map_err(classify)?;
        Ok(Self { key, layout, id, part_bytes, acknowledged: Vec::new() })
    }

    async fn send_missing(&self, ctx: &Ctx<Services>) -> Result<Vec<CompletedPart>, StepError> {
        let count = self.layout.len().div_ceil(self.part_bytes);
        let numbers = 1..=i32::try_from(count).map_err(StepError::fail)?;
        let has = |number: &i32| self.acknowledged.iter().any(|part| part.number == *number);
        let missing: Vec<i32> = numbers.filter(|number| !has(number)).collect();
        let mut sent = stream::iter(missing).map(|number| self.send(ctx, number)).buffer_unordered(PARALLEL_PARTS);
        let mut parts = self.acknowledged.clone();
        while let Some(part) = sent.try_next().await? {
            parts.push(part);
            ctx.progress(parts.len() as u64 * self.part_bytes, self.layout.len(), "bytes");
        }
        parts.sort_by_key(|part| part.number);
        parts.dedup_by_key(|part| part.number);
        Ok(parts)
    }

    async fn send(&self, ctx: &Ctx<Services>, number: i32) -> Result<CompletedPart, StepError> {
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        let services = ctx.services();
        let from = u64::from(number.unsigned_abs() - 1) * self.part_bytes;
        let to = (from + self.part_bytes).min(self.layout.len());
        let body = assemble::range(&services.store, &self.layout, from, to).await.map_err(classify)?;
        let bytes = body.len() as u64;
        let part = match services.store.upload_part(&self.key, &self.id, number, body).await {
            Err(error) => return Err(self.forget_if_gone(services, error).await),
            Ok(part) => part,
        };
        Phase::Uploaded.count(bytes);
        catalog::add_part(&services.control, &self.key.to_string(), &self.id, &part).await.map_err(classify)?;
        Ok(part)
    }

    async fn complete(&self, services: &Services, parts: &[CompletedPart]) -> Result<(), StepError> {
        match services.store.complete_upload(&self.key, &self.id, parts).await {
            Err(error) => Err(self.forget_if_gone(services, error).await),
            Ok(_) => Ok(()),
        }
    }

    /// An upload that the server no longer knows (lifecycle rules abort old ones) is begun anew by the next attempt.
    async fn forget_if_gone(&self, services: &Services, error: StoreError) -> StepError {
        let gone = matches!(&error, StoreError::Refused { code, .. } if code == "NoSuchUpload" || code == "InvalidPart");
        if !gone {
            return classify(error);
        }
        match catalog::forget_upload(&services.control, &self.key.to_string(), &self.id).await {
            Ok(()) => StepError::retry(error),
            Err(error) => classify(error),
        }
    }
}
