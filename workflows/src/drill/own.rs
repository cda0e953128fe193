//! The path of `snapshots restore`: chunks, checked and copied.

use std::sync::Arc;

use bytes::Bytes;
use engine::StepError;
use sha2::{Digest, Sha256};
use snapshot::drill::{Mode, Path, Step, Way, sample};
use snapshot::fetch::Opened;
use snapshot::load::LoadError;

use super::place::{Site, Walked, proof, size_of};
use crate::restoring;
use crate::step_error::classify;

/// What the path is called, and its database.
const NAME: &str = "own";

pub(super) async fn walk(site: &Site<'_>, opened: &Arc<Opened>, mode: Mode) -> Result<Walked, StepError> {
    let part = if mode == Mode::Sample { reduced(opened, site.ctx.run().0.as_bytes()) } else { Arc::clone(opened) };
    let (_, pool) = site.database(NAME).await?;
    let postgres = site.room(&pool, &part, (0, 0)).await?;
    let walked = |path| Walked { path, postgres, chunks: part.manifest.chunks.len() as u64 };
    let source = &site.public.source;
    let before = source.fetched_bytes();
    let steps = match restoring::into_database(site.ctx, &pool, (source, &part), &site.options()).await? {
        Ok(outcome) => outcome.steps.iter().map(|step| Step::new(step.name, step.seconds)).collect(),
        Err(damage) if restoring::is_damage(&damage) => {
            site.drop(NAME, pool).await?;
            return Ok(walked(Path::broken(Way::Own, engine::in_full(&damage), Vec::new())));
        }
        // An address that refuses its readers may take them back.
        Err(LoadError::Fetch(error)) => return Err(StepError::retry(error)),
        Err(error) => return Err(classify(error)),
    };
    let fetched_bytes = source.fetched_bytes() - before;
    let (report, seconds) = site.timed(proof(pool.clone(), Arc::clone(&part), mode)).await?;
    let database_bytes = size_of(&pool).await?;
    site.drop(NAME, pool).await?;
    Ok(walked(Path { fetched_bytes, database_bytes, ..Path::proven_by(Way::Own, &report, seconds, steps) }))
}

/// As if the snapshot held nothing else.
fn reduced(opened: &Opened, seed: &[u8]) -> Arc<Opened> {
    let manifest = sample(&opened.manifest, seed);
    let bytes = Bytes::from(manifest.to_bytes());
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Arc::new(Opened { manifest, bytes, sha256, signed_by: opened.signed_by.clone() })
}
