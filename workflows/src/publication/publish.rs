//! Steps of `publish`: everything the manifest names is there, and no restore drill has disproved it; then the snapshot is listed
//! again, `latest` may move to it, and `status.json` says so.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::Pointer;

use super::Decision;
use crate::newest::{self, Reference};
use crate::pointer::{self, Move};
use crate::services::Services;
use crate::step_error::classify;
use crate::{catalog, decisions, dirty, status};

/// The snapshot, found complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checked {
    snapshot: Reference,
}

/// Where `latest` points now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pointed {
    latest: Option<String>,
}

pub(super) async fn check(ctx: Ctx<Services>, decision: Decision) -> Result<Checked, StepError> {
    let services = ctx.services();
    let found = catalog::known(&services.control, decision.network.as_deref(), &decision.id).await.map_err(classify)?;
    let gone = || StepError::fail(std::io::Error::other(format!("snapshot {} is not in the catalog any more", decision.id)));
    let row = found.into_iter().next().ok_or_else(gone)?;
    if row.is_disproved() {
        let what = format!(
            "a restore drill found that {} does not restore to what its manifest says; if that is mended, let a full one prove it first: \
             `snapshots run start restore_drill`, with its id and {{\"mode\": \"full\"}}",
            row.id
        );
        return Err(StepError::fail(std::io::Error::other(what)));
    }
    let manifest_sha256 = row.manifest_sha256.unwrap_or_default();
    let snapshot = Reference { network: row.network, id: row.id, manifest_sha256 };
    let signed = stored(services, &snapshot).await?.signature.is_some();
    pointer::complete(services, &snapshot, pointer::Signed::with_pointer(signed)).await?;
    Ok(Checked { snapshot })
}

/// What `latest` said, or would have said, when the snapshot was promoted.
async fn stored(services: &Services, snapshot: &Reference) -> Result<Pointer, StepError> {
    let never = || {
        let id = &snapshot.id;
        let what = format!(
            "{id} was never promoted: its run ended before. Retry that run, or cut a new snapshot with `snapshots create`"
        );
        StepError::fail(std::io::Error::other(what))
    };
    pointer::stored(services, snapshot).await?.ok_or_else(never)
}

pub(super) async fn point(ctx: Ctx<Services>, checked: Checked) -> Result<Pointed, StepError> {
    let services = ctx.services();
    let decision: Decision = ctx.params()?;
    let Reference { network, id, .. } = checked.snapshot.clone();
    let stored = stored(services, &checked.snapshot).await?;
    if !decisions::publish(&services.control, &network, &decision, ctx.run().0).await.map_err(classify)? {
        let what =
            format!("{id} has expired meanwhile, and its objects are being removed; cut a new snapshot with `snapshots create`");
        return Err(StepError::fail(std::io::Error::other(what)));
    }
    services.store.delete(&Key::Retracted(SnapshotPath::new(&network, &id))).await.map_err(classify)?;
    let how = if decision.back { Move::Anywhere } else { Move::Forwards };
    pointer::point(services, &stored, how).await?;
    let latest = newest::pointer(services, &network).await?.map(|pointer| pointer.snapshot_id);
    if latest.as_ref() == Some(&id) {
        catalog::mark_promoted(&services.control, &network, &id).await.map_err(classify)?;
        dirty::clear(&services.control, &network, stored.sequence).await.map_err(classify)?;
    }
    status::write(services, &network).await;
    Ok(Pointed { latest })
}
