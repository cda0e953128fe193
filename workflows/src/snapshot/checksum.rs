//! Step `checksum`: reads every chunk back from the bucket, checks it against its name, and digests the archive.
//!
//! This is the moment at which what was stored is proved to be what was cut; a chunk that does not match stops the run
//! before anything is published.

use std::pin::pin;

use engine::{Ctx, StepError};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::assemble;

use super::compress::Spliced;
use super::plan::Plan;
use crate::figures::Phase;
use crate::services::Services;
use crate::step_error::classify;

/// Digest of the archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Summed {
    /// sha256 (hex) of the archive's bytes.
    pub(super) sha256: String,
}

pub(super) async fn run(ctx: Ctx<Services>, spliced: Spliced) -> Result<Summed, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let layout = spliced.fetch_layout(ctx.services(), &plan).await?;
    let total = layout.len();
    let mut archive = Sha256::new();
    let mut done = 0;
    let mut segments = pin!(assemble::segments(&ctx.services().store, &layout));
    while let Some(segment) = segments.try_next().await.map_err(classify)? {
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        done += segment.len() as u64;
        Phase::Verified.count(segment.len() as u64);
        archive = ctx
            .blocking(move || {
                archive.update(&segment);
                Ok(archive)
            })
            .await?;
        ctx.progress(done, total, "bytes");
    }
    Ok(Summed { sha256: hex::encode(archive.finalize()) })
}
