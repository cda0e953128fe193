//! Step `publish`: completes the upload of the archive, writes `snapshot.sha256` and then the manifest, each after its
//! signature. From that moment the snapshot exists.

use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::chunk::Heights;
use snapshot::key::Key;
use snapshot::manifest::{Archive, Finality, Manifest, Producer, Profile, VERSION, totals};

use super::checksum::Summed;
use super::compress::Spliced;
use super::plan::Plan;
use super::upload::{self, Sent};
use crate::catalog;
use crate::dirty;
use crate::pointer;
use crate::services::Services;
use crate::signing;
use crate::step_error::classify;

/// The published manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Published {
    /// sha256 (hex) of its bytes.
    pub(super) manifest_sha256: String,
}

/// What must have happened before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proved {
    checksum: Summed,
    upload: Sent,
}

pub(super) async fn run(ctx: Ctx<Services>, proved: Proved) -> Result<Published, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let spliced: Spliced = ctx.output("compress").await?;
    let services = ctx.services();
    if plan.archive == Archive::Stored {
        upload::complete(&ctx, &plan, &spliced).await?;
    }
    let manifest = manifest(&plan, spliced, &proved);
    signing::publish_keys(services, &services.store).await?;
    let line = plan.path().checksum_line(&manifest.checksum);
    put_signed(services, &plan, Key::Checksum(plan.path()), Bytes::from(line)).await?;
    refuse_outlived(services, &plan, &manifest).await?;
    let bytes = Bytes::from(manifest.to_bytes());
    let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
    put_signed(services, &plan, Key::Manifest(plan.path()), bytes).await?;
    catalog::mark_published(&services.control, &manifest, &manifest_sha256).await.map_err(classify)?;
    let cut = plan.ranges.iter().map(|range| range.heights).filter(|heights| !plan.reused.contains(heights));
    let me = (plan.network.as_str(), plan.sequence);
    dirty::recut(&services.control, me, cut.collect(), plan.created_at).await.map_err(classify)?;
    Ok(Published { manifest_sha256 })
}

/// What a run stored is named by nothing before its manifest: where it failed, and is tried again after the grace time, pruning
/// may have removed it.
async fn refuse_outlived(services: &Services, plan: &Plan, manifest: &Manifest) -> Result<(), StepError> {
    if (Utc::now() - plan.created_at).to_std().unwrap_or_default() < services.settings.prune_grace {
        return Ok(());
    }
    match pointer::lacking(services, manifest).await? {
        None => Ok(()),
        Some(problem) => Err(StepError::fail(std::io::Error::other(format!("{problem}; retry this run from the start")))),
    }
}

/// Writes an object of this run, signed.
pub(super) async fn put_signed(services: &Services, plan: &Plan, key: Key, body: Bytes) -> Result<(), StepError> {
    signing::put_signed(services, &services.store, (key, plan.sequence), body).await
}

/// Everything in it comes from earlier steps' outputs, so that a second attempt writes the same bytes.
fn manifest(plan: &Plan, spliced: Spliced, proved: &Proved) -> Manifest {
    Manifest {
        version: VERSION,
        network: plan.network.clone(),
        profile: Profile::Public,
        snapshot_id: plan.id.clone(),
        sequence: plan.sequence,
        previous: plan.previous.clone(),
        created_at: plan.created_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        expires_at: plan.expires_at.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        block_height: plan.facts.height,
        block_hash: plan.facts.hash.clone(),
        block_time: plan.facts.timestamp,
        burn_block_height: plan.facts.burn_block_height,
        coverage: Heights { from: plan.facts.first, to: plan.facts.height },
        finality: Finality { confirmations: plan.confirmations, burn_tip: plan.facts.burn_tip },
        format: "pg_dump_directory".into(),
        compression: "zstd".into(),
        checksum: format!("sha256:{}", proved.checksum.sha256),
        url: format!("{}/{}", plan.archive_base_url, Key::Archive(plan.path())),
        archive: plan.archive,
        size_bytes: proved.upload.bytes,
        raw_bytes: spliced.raw_bytes,
        tables: totals(&spliced.chunks),
        shapes: plan.shapes.clone(),
        schema: spliced.schema,
        schema_version: plan.schema_version.clone(),
        producer: Producer { version: env!("CARGO_PKG_VERSION").into(), postgres: plan.postgres.clone() },
        audit: spliced.audit,
        chunks: spliced.chunks,
        ranges: spliced.ranges,
        sequences: Vec::new(),
        unknown: serde_json::Map::new(),
    }
}
