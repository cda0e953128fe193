//! Pruning of the `full` profile: the same policy and grace time. Its snapshots share nothing, so each goes with all that lies
//! under its name, and no manifest need be read, which only operators could.

use engine::StepError;
use snapshot::key::SnapshotPath;

use super::policy::{self, Candidate};
use super::{Pruned, sweep};
use crate::services::Services;
use crate::step_error::classify;
use crate::{full_catalog, newest};

/// Takes out what the policy does not keep. A service without a bucket for the profile leaves its snapshots alone.
pub(super) async fn expire(services: &Services, network: &str, pruned: &mut Pruned) -> Result<(), StepError> {
    let Some(full) = &services.full else { return Ok(()) };
    let latest = newest::pointer_in(&full.store, network).await?.map(|pointer| pointer.snapshot_id);
    let published = full_catalog::published(&services.control, network).await.map_err(classify)?;
    let candidate = |(id, created_at): (String, _)| {
        let held = latest.as_ref() == Some(&id);
        Candidate { id, created_at, held, retracted: false, promoted: true, stored: true }
    };
    let candidates: Vec<Candidate> = published.into_iter().map(candidate).collect();
    let kept = policy::kept(&candidates, services.settings.keep);
    let (stay, go): (Vec<String>, Vec<String>) = candidates.into_iter().map(|row| row.id).partition(|id| kept.contains(id));
    if pruned.dry_run {
        let overdue = full_catalog::overdue(&services.control, network, services.settings.prune_grace).await;
        pruned.full.removed = overdue.map_err(classify)?;
    } else {
        full_catalog::expire(&services.control, network, &go).await.map_err(classify)?;
    }
    pruned.full.kept = stay;
    pruned.full.expired = go;
    Ok(())
}

/// Deletes what is overdue.
pub(super) async fn remove(services: &Services, network: &str, pruned: &mut Pruned) -> Result<(), StepError> {
    let Some(full) = &services.full else { return Ok(()) };
    let latest = newest::pointer_in(&full.store, network).await?.map(|pointer| pointer.snapshot_id);
    for id in full_catalog::overdue(&services.control, network, services.settings.prune_grace).await.map_err(classify)? {
        if latest.as_ref() == Some(&id) {
            tracing::error!(network, id, "the full profile's `latest` names an expired snapshot; its objects stay");
            continue;
        }
        pruned.bytes += sweep::remove(&full.store, &SnapshotPath::new(network, &id)).await?;
        full_catalog::deleted(&services.control, network, &id).await.map_err(classify)?;
        pruned.full.removed.push(id);
    }
    Ok(())
}
