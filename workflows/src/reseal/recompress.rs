//! Step `recompress`: the chunks of the newest snapshot that are sealed and not yet compressed again, one after the other.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::chunk::Chunk;
use snapshot::key::Key;
use snapshot::recompress::recompress;

use super::Params;
use crate::newest::Reference;
use crate::resealed::{self, Object};
use crate::services::Services;
use crate::step_error::classify;

/// What the run achieved, attempts before this one not included.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resealed {
    chunks: usize,
    bytes_before: u64,
    bytes_after: u64,
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Resealed, StepError> {
    let network = params.network.unwrap_or_default();
    let Some(newest) = Reference::latest(ctx.services(), &network).await? else { return Ok(Resealed::default()) };
    let manifest = newest.manifest(ctx.services()).await?;
    let sealed: Vec<Chunk> = manifest.chunks.into_iter().filter(|chunk| chunk.sealed).collect();
    let contents: Vec<String> = sealed.iter().map(|chunk| chunk.content_sha256.clone()).collect();
    let known = resealed::of(&ctx.services().control, &contents).await.map_err(classify)?;
    let left = sealed.into_iter().filter(|chunk| !known.contains_key(&chunk.content_sha256));
    let left: Vec<Chunk> = left.take(params.chunks.unwrap_or(usize::MAX)).collect();
    let (mut done, total) = (Resealed::default(), left.len() as u64);
    for chunk in left {
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        done.bytes_before += chunk.bytes;
        done.bytes_after += one(&ctx, chunk).await?;
        done.chunks += 1;
        ctx.progress(done.chunks as u64, total, "chunks");
    }
    Ok(done)
}

/// Stores the smaller object and remembers it; returns its size. Where nothing is gained the old object is remembered.
async fn one(ctx: &Ctx<Services>, chunk: Chunk) -> Result<u64, StepError> {
    let services = ctx.services();
    let key = Key::Chunk(chunk.sha256.clone());
    let gone = || std::io::Error::other(format!("{key} is gone from the bucket; run the scrub workflow"));
    let (stored, _) = services.store.get(&key).await.map_err(classify)?.ok_or_else(|| StepError::fail(gone()))?;
    let (sha256, content, before) = (chunk.sha256.clone(), chunk.content_sha256.clone(), chunk.bytes);
    let smaller = ctx.blocking(move || recompress(&chunk, &stored).map_err(StepError::fail)).await?;
    let object = if (smaller.len() as u64) < before {
        let sha256 = hex::encode(Sha256::digest(&smaller));
        let bytes = smaller.len() as u64;
        services.store.put_new(&Key::Chunk(sha256.clone()), smaller).await.map_err(classify)?;
        Object { sha256, bytes: bytes.cast_signed() }
    } else {
        Object { sha256, bytes: before.cast_signed() }
    };
    resealed::remember(&services.control, &content, &object).await.map_err(classify)?;
    Ok(object.bytes.unsigned_abs())
}
