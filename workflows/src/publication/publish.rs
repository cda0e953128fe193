//! Steps of `publish`: everything the manifest names is there, and no restore drill has disproved it; then the snapshot is listed
//! again and `latest` may move to it.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::key::{Key, SnapshotPath};

use super::Decision;
use crate::newest::{self, Reference};
use crate::pointer::{self, Move};
use crate::services::Services;
use crate::step_error::classify;
use crate::{catalog, decisions};

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
            "a restore drill found that {} does not restore to what its manifest says; if that is mended, let `snapshots run start restore_drill` prove it first",
            row.id
        );
        return Err(StepError::fail(std::io::Error::other(what)));
    }
    let manifest_sha256 = row.manifest_sha256.unwrap_or_default();
    let snapshot = Reference { network: row.network, id: row.id, manifest_sha256 };
    pointer::complete(services, &snapshot).await?;
    Ok(Checked { snapshot })
}

pub(super) async fn point(ctx: Ctx<Services>, checked: Checked) -> Result<Pointed, StepError> {
    let services = ctx.services();
    let decision: Decision = ctx.params()?;
    let Reference { network, id, .. } = checked.snapshot.clone();
    let never = || {
        let what = format!("{id} was never promoted: its run ended before. Cut a new snapshot with `snapshots create`");
        StepError::fail(std::io::Error::other(what))
    };
    let stored = pointer::stored(services, &checked.snapshot).await?.ok_or_else(never)?;
    if !decisions::publish(&services.control, &network, &decision, ctx.run().0).await.map_err(classify)? {
        let what =
            format!("{id} has expired meanwhile, and its objects are being removed; cut a new snapshot with `snapshots create`");
        return Err(StepError::fail(std::io::Error::other(what)));
    }
    services.store.delete(&Key::Retracted(SnapshotPath::new(&network, &id))).await.map_err(classify)?;
    let how = if decision.back { Move::Anywhere } else { Move::Forwards };
    pointer::point(services, &stored, how).await?;
    catalog::mark_promoted(&services.control, &network, &id).await.map_err(classify)?;
    Ok(Pointed { latest: newest::pointer(services, &network).await?.map(|pointer| pointer.snapshot_id) })
}
