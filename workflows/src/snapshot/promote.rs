//! Step `promote`: moves `<network>/latest.json`, and the root's, to the new snapshot by compare-and-swap.
//!
//! The pointer is signed. Its signature lies under the snapshot's own name and is written first, so that no reader meets a new
//! pointer with an old signature. Invariant: a pointer never goes backwards. A higher sequence that is there already wins, silently if it is ours.

use bytes::Bytes;
use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer, Pointers};
use snapshot::store::StoreError;

use super::plan::Plan;
use super::publish::{Published, put_signed};
use crate::catalog;
use crate::services::Services;
use crate::step_error::classify;

/// What the run achieved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Promoted {
    network: String,
    id: String,
    block_height: u64,
    url: String,
}

pub(super) async fn run(ctx: Ctx<Services>, published: Published) -> Result<Promoted, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let services = ctx.services();
    let pointer = complete(services, &plan, published).await?;
    put_signed(services, &plan, Key::Pointer(plan.path()), Bytes::from(pointer.to_bytes())).await?;
    let latest = Key::Latest(plan.network.clone());
    swap(services, &latest, |there: Option<Pointer>| newer(there, &pointer), |pointer| Ok(pointer.to_bytes())).await?;
    swap(
        services,
        &Key::LatestOfAll,
        |there: Option<Pointers>| {
            let mut all = there.unwrap_or_default();
            let next = newer(all.networks.remove(&pointer.network), &pointer)?;
            all.networks.insert(pointer.network.clone(), next);
            Some(all)
        },
        |all| serde_json::to_vec_pretty(all).map_err(StepError::fail),
    )
    .await?;
    catalog::mark_promoted(&services.control, &plan.network, &plan.id).await.map_err(classify)?;
    Ok(Promoted { network: plan.network, id: plan.id, block_height: pointer.block_height, url: pointer.url })
}

/// Reads the manifest back and makes sure that what it names is there, before anybody is sent to it.
async fn complete(services: &Services, plan: &Plan, published: Published) -> Result<Pointer, StepError> {
    let fail = |what: String| StepError::fail(std::io::Error::other(what));
    let key = Key::Manifest(plan.path());
    let (bytes, _) = services.store.get(&key).await.map_err(classify)?.ok_or_else(|| fail(format!("{key} is gone")))?;
    let manifest = Manifest::from_bytes(&bytes).map_err(StepError::fail)?;
    let archive = Key::Archive(plan.path());
    let size = services.store.head(&archive).await.map_err(classify)?.map(|meta| meta.bytes);
    if size != Some(manifest.size_bytes) {
        return Err(fail(format!("{archive} has {size:?} bytes instead of {}", manifest.size_bytes)));
    }
    Ok(manifest.pointer(published.manifest_sha256, services.signing.is_some()))
}

/// The new pointer, or `None` where the one that is there is at least as new.
fn newer(there: Option<Pointer>, pointer: &Pointer) -> Option<Pointer> {
    let newer = there.is_none_or(|there| there.sequence < pointer.sequence);
    newer.then(|| pointer.clone())
}

/// Replaces a pointer object by what `change` makes of it, however many others try the same.
async fn swap<T>(
    services: &Services,
    key: &Key,
    change: impl Fn(Option<T>) -> Option<T>,
    bytes_of: impl Fn(&T) -> Result<Vec<u8>, StepError>,
) -> Result<(), StepError>
where
    T: for<'de> Deserialize<'de>,
{
    loop {
        let there = services.store.get(key).await.map_err(classify)?;
        let (old, etag) = match there {
            Some((bytes, etag)) => (Some(serde_json::from_slice(&bytes).map_err(StepError::fail)?), Some(etag)),
            None => (None, None),
        };
        let Some(new) = change(old) else { return Ok(()) };
        let body = Bytes::from(bytes_of(&new)?);
        match services.store.put_if_match(key, body, etag.as_deref()).await {
            Ok(_) => return Ok(()),
            // Missing: S3 answers so to a condition on an object that was deleted meanwhile.
            Err(StoreError::Precondition { .. } | StoreError::Missing { .. }) => {}
            Err(error) => return Err(classify(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(sequence: u64) -> Pointer {
        Pointer {
            version: 1,
            network: "mainnet".into(),
            snapshot_id: format!("s{sequence}"),
            sequence,
            created_at: String::new(),
            expires_at: None,
            block_height: 0,
            block_hash: String::new(),
            manifest: String::new(),
            manifest_sha256: String::new(),
            url: String::new(),
            checksum: String::new(),
            size_bytes: 0,
            signature: None,
        }
    }

    #[test]
    fn a_pointer_never_goes_backwards() {
        assert_eq!(newer(None, &pointer(1)), Some(pointer(1)));
        assert_eq!(newer(Some(pointer(1)), &pointer(2)), Some(pointer(2)));
        assert_eq!(newer(Some(pointer(2)), &pointer(2)), None);
        assert_eq!(newer(Some(pointer(3)), &pointer(2)), None);
    }
}
