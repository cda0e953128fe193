//! Step `mark`: which snapshots leave the lists, and which chunks nothing names.

use std::time::Duration;

use chrono::Utc;
use engine::{Ctx, StepError};
use snapshot::store::Listed;

use super::look::{Look, look};
use super::{Params, Pruned, full, policy, rows};
use crate::newest;
use crate::services::Services;
use crate::step_error::classify;

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Pruned, StepError> {
    let services = ctx.services();
    let network = params.network.unwrap_or_default();
    let mut pruned = Pruned { dry_run: params.dry_run, ..Pruned::default() };
    expire(services, &network, &mut pruned).await?;
    full::expire(services, &network, &mut pruned).await?;
    if params.dry_run {
        pruned.removed = rows::overdue(&services.control, &network, services.settings.prune_grace).await.map_err(classify)?;
    }
    let run = ctx.run().0;
    if let Some(cutting) = rows::cutting(&services.control).await.map_err(classify)? {
        pruned.skipped = Some(format!("run {cutting} is cutting a snapshot"));
        return Ok(pruned);
    }
    let grace = services.settings.prune_grace;
    let seen = look(services).await?;
    let unreferenced: Vec<(String, i64)> =
        seen.unreferenced().map(|object| (object.key.clone(), object.bytes.cast_signed())).collect();
    pruned.unreferenced = unreferenced.len();
    let old = old_enough(&seen, grace);
    if params.dry_run {
        let (chunks, bytes) = rows::condemnable(&services.control, &old, grace).await.map_err(classify)?;
        pruned.chunks = usize::try_from(chunks).unwrap_or_default();
        pruned.bytes = bytes.unsigned_abs();
        return Ok(pruned);
    }
    rows::note(&services.control, &unreferenced, run).await.map_err(classify)?;
    rows::condemn(&services.control, &old, run, grace).await.map_err(classify)?;
    Ok(pruned)
}

async fn expire(services: &Services, network: &str, pruned: &mut Pruned) -> Result<(), StepError> {
    let latest = newest::pointer(services, network).await?.map(|pointer| pointer.snapshot_id);
    let candidates =
        rows::candidates(&services.control, network, latest.as_deref(), services.settings.prune_grace).await.map_err(classify)?;
    let kept = policy::kept(&candidates, services.settings.keep);
    let (stay, go): (Vec<String>, Vec<String>) = candidates.into_iter().map(|row| row.id).partition(|id| kept.contains(id));
    if !pruned.dry_run {
        rows::expire(&services.control, network, &go).await.map_err(classify)?;
    }
    pruned.kept = stay;
    pruned.expired = go;
    Ok(())
}

/// Chunks that nothing names and that were written a grace time ago: a younger one may belong to a snapshot that another
/// service is cutting into this bucket.
fn old_enough(seen: &Look, grace: Duration) -> Vec<String> {
    let before = Utc::now() - grace;
    let old = |object: &&Listed| object.modified.is_some_and(|modified| modified <= before);
    seen.unreferenced().filter(old).map(|object| object.key.clone()).collect()
}
