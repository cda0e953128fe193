//! Step `rehash`, one child per range: digests the rows again, reads the objects back, and marks the range if either differs.
//!
//! A rotten object is taken out of the bucket, since a chunk that is cut anew could not be stored under its name otherwise. It
//! is read twice before that.

use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use snapshot::chunk::{Chunk, Heights};
use snapshot::cut::{begin_export, digest_rows};
use snapshot::key::Key;
use snapshot::manifest::Manifest;
use sqlx::PgPool;

use super::Chosen;
use crate::dirty;
use crate::services::Services;
use crate::step_error::classify;

/// What one child looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Looked {
    /// Chunks.
    pub(super) chunks: u64,
    /// Bytes of rows digested.
    pub(super) raw_bytes: u64,
    /// What is not as it should be.
    pub(super) findings: Vec<Finding>,
}

/// A chunk that is not what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    chunk: String,
    problem: String,
}

pub(super) async fn run(ctx: Ctx<Services>, range: Heights) -> Result<Looked, StepError> {
    let chosen: Chosen = ctx.output("choose").await?;
    let Some(snapshot) = chosen.snapshot else { return Ok(Looked::default()) };
    let manifest = snapshot.manifest(ctx.services()).await?;
    let chunks: Vec<&Chunk> = manifest.chunks_in(range).collect();
    let mut looked = Looked::default();
    for chunk in &chunks {
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        let problems = [changed_rows(ctx.services(), &manifest, chunk).await?, rotten(&ctx, chunk).await?];
        let finding = |problem| Finding { chunk: chunk.file_name(), problem };
        looked.findings.extend(problems.into_iter().flatten().map(finding));
        looked.chunks += 1;
        looked.raw_bytes += chunk.raw_bytes;
        ctx.progress(looked.chunks, chunks.len() as u64, "chunks");
    }
    for finding in &looked.findings {
        alarm(&ctx, &snapshot.id, finding).await?;
        dirty::mark(&ctx.services().control, &snapshot.network, range, &finding.problem).await.map_err(classify)?;
    }
    Ok(looked)
}

async fn alarm(ctx: &Ctx<Services>, snapshot: &str, finding: &Finding) -> Result<(), StepError> {
    tracing::error!(snapshot, chunk = finding.chunk, problem = finding.problem, "scrubbing found a difference");
    let data = json!({ "snapshot": snapshot, "chunk": finding.chunk, "problem": finding.problem });
    ctx.event(Level::Error, super::MISMATCH, data).await
}

/// The rows in the database, if they are not those that were cut.
async fn changed_rows(services: &Services, manifest: &Manifest, chunk: &Chunk) -> Result<Option<String>, StepError> {
    let Some(shape) = manifest.shapes.iter().find(|shape| shape.name == chunk.table) else {
        return Ok(Some("its manifest does not name the table's columns".into()));
    };
    let (shape, heights) = (shape.clone(), chunk.heights);
    let digest = |pool: PgPool| async move {
        let mut conn = pool.acquire().await?;
        let mut tx = begin_export(&mut conn).await?;
        digest_rows(&mut tx, &shape, heights).await
    };
    let now = services.reading.run(digest).await.map_err(classify)?;
    let differs = now.content_sha256 != chunk.content_sha256;
    Ok(differs.then(|| format!("{} rows in the database differ from the {} that were published", now.rows, chunk.rows)))
}

/// The object in the bucket, if it is not what its name says.
async fn rotten(ctx: &Ctx<Services>, chunk: &Chunk) -> Result<Option<String>, StepError> {
    let key = Key::Chunk(chunk.sha256.clone());
    let Some(found) = stored_digest(ctx, &key).await? else { return Ok(Some("its object is not in the bucket".into())) };
    if found == chunk.sha256 {
        return Ok(None);
    }
    let again = stored_digest(ctx, &key).await?;
    if again.as_ref() == Some(&chunk.sha256) {
        return Ok(None);
    }
    if again.is_some() {
        ctx.services().store.delete(&key).await.map_err(classify)?;
    }
    Ok(Some(format!("its object had sha256 {found} and was taken out of the bucket")))
}

async fn stored_digest(ctx: &Ctx<Services>, key: &Key) -> Result<Option<String>, StepError> {
    let Some((body, _)) = ctx.services().store.get(key).await.map_err(classify)? else { return Ok(None) };
    ctx.blocking(move || Ok(Some(hex::encode(Sha256::digest(&body))))).await
}
