//! Step `sweep`: deletes the objects of snapshots whose grace time is over, the condemned chunks, and forgotten uploads.
//!
//! It looks at the bucket a second time: a chunk that a manifest names by now stays. A snapshot's manifest goes last, so that
//! an attempt after a crash finds what is left.

use engine::{Ctx, StepError};
use snapshot::key::{Key, SnapshotPath};
use snapshot::store::{Store, StoreError};

use super::look::look;
use super::{Params, Pruned, rows};
use crate::catalog;
use crate::newest;
use crate::services::Services;
use crate::step_error::classify;

pub(super) async fn run(ctx: Ctx<Services>, mut pruned: Pruned) -> Result<Pruned, StepError> {
    if pruned.dry_run {
        return Ok(pruned);
    }
    let services = ctx.services();
    let network = ctx.params::<Params>()?.network.unwrap_or_default();
    let grace = services.settings.prune_grace;
    for id in rows::overdue(&services.control, &network, grace).await.map_err(classify)? {
        // Readers were sent to it since it expired.
        if newest::pointer(services, &network).await?.is_some_and(|latest| latest.snapshot_id == id) {
            rows::revive(&services.control, &network, &id).await.map_err(classify)?;
            continue;
        }
        pruned.bytes += remove(&services.store, &SnapshotPath::new(&network, &id)).await?;
        rows::deleted(&services.control, &network, &id).await.map_err(classify)?;
        pruned.removed.push(id);
    }
    super::full::remove(services, &network, &mut pruned).await?;
    if skipped(services, &mut pruned).await? {
        return Ok(pruned);
    }
    pruned.uploads = abort_uploads(services, &network).await?;
    delete_condemned(&ctx, &mut pruned).await?;
    Ok(pruned)
}

/// Whether a snapshot is being cut by now: it may take over a chunk that was garbage a moment ago.
async fn skipped(services: &Services, pruned: &mut Pruned) -> Result<bool, StepError> {
    let cutting = rows::cutting(&services.control).await.map_err(classify)?;
    if let Some(run) = &cutting {
        pruned.skipped = Some(format!("run {run} is cutting a snapshot"));
    }
    Ok(cutting.is_some())
}

/// Deletes everything that lies under a snapshot's own name; returns its size.
pub(super) async fn remove(store: &Store, path: &SnapshotPath) -> Result<u64, StepError> {
    let manifests = [Key::Manifest(path.clone()), Key::EncryptedManifest(path.clone())].map(|key| key.to_string());
    let mut bytes = 0;
    for object in store.list(&format!("{path}/")).await.map_err(classify)? {
        bytes += object.bytes;
        if !manifests.contains(&object.key) {
            store.delete_at(&object.key).await.map_err(classify)?;
        }
    }
    for manifest in manifests {
        store.delete_at(&manifest).await.map_err(classify)?;
    }
    Ok(bytes)
}

async fn delete_condemned(ctx: &Ctx<Services>, pruned: &mut Pruned) -> Result<(), StepError> {
    let services = ctx.services();
    let condemned = rows::condemned(&services.control, ctx.run().0).await.map_err(classify)?;
    if condemned.is_empty() {
        return Ok(());
    }
    let seen = look(services).await?;
    let total = condemned.len() as u64;
    for (done, (key, bytes)) in condemned.into_iter().enumerate() {
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        if skipped(services, pruned).await? {
            return Ok(());
        }
        if !seen.named.contains(&key) {
            services.store.delete_at(&key).await.map_err(classify)?;
            pruned.chunks += 1;
            pruned.bytes += bytes.unsigned_abs();
        }
        rows::gone(&services.control, &key).await.map_err(classify)?;
        ctx.progress(done as u64 + 1, total, "chunks");
    }
    Ok(())
}

/// Uploads that no run goes on with: those in our rows, and those that only the server knows of.
async fn abort_uploads(services: &Services, network: &str) -> Result<usize, StepError> {
    let grace = services.settings.prune_grace;
    let mut aborted = 0;
    let mine = rows::stale_uploads(&services.control, network, grace).await.map_err(classify)?;
    let open = services.store.open_uploads(&format!("{network}/"), grace).await.map_err(classify)?;
    let stale = mine.into_iter().chain(open.into_iter().map(|upload| (upload.key, upload.id)));
    for (key, id) in stale {
        match services.store.abort_upload(&key, &id).await {
            Ok(()) | Err(StoreError::Missing { .. }) => aborted += 1,
            Err(error) => return Err(classify(error)),
        }
        catalog::forget_upload(&services.control, &key, &id).await.map_err(classify)?;
    }
    Ok(aborted)
}
