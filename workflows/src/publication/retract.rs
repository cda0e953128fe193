//! Steps of `retract`: the catalog and a notice beside the snapshot say why; `latest` goes to the newest that is left.

use bytes::Bytes;
use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::Pointer;

use super::Decision;
use crate::newest::{self, Reference};
use crate::pointer;
use crate::services::Services;
use crate::step_error::classify;
use crate::{catalog, decisions};

/// The snapshot that was withdrawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Withdrawn {
    network: String,
    id: String,
}

/// Where `latest` points now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Repointed {
    latest: Option<String>,
}

pub(super) async fn withdraw(ctx: Ctx<Services>, decision: Decision) -> Result<Withdrawn, StepError> {
    let services = ctx.services();
    let network = decision.network.clone().unwrap_or_default();
    decisions::retract(&services.control, &network, &decision, ctx.run().0).await.map_err(classify)?;
    let notice = json!({ "id": decision.id, "network": network, "reason": decision.reason, "at": ctx.run_created_at() });
    let body = serde_json::to_vec_pretty(&notice).map_err(StepError::fail)?;
    // Retracted, published again and retracted again, it keeps the first notice until publishing takes it away.
    let key = Key::Retracted(SnapshotPath::new(&network, &decision.id));
    services.store.put_new(&key, Bytes::from(body)).await.map_err(classify)?;
    Ok(Withdrawn { network, id: decision.id })
}

pub(super) async fn repoint(ctx: Ctx<Services>, withdrawn: Withdrawn) -> Result<Repointed, StepError> {
    let services = ctx.services();
    let Withdrawn { network, id } = withdrawn;
    let there = newest::pointer(services, &network).await?;
    if there.as_ref().is_some_and(|pointer| pointer.snapshot_id != id) {
        return Ok(Repointed { latest: there.map(|pointer| pointer.snapshot_id) });
    }
    for row in catalog::promoted(&services.control, &network).await.map_err(classify)? {
        let manifest_sha256 = row.manifest_sha256.clone().unwrap_or_default();
        let candidate = Reference { network: network.clone(), id: row.id.clone(), manifest_sha256 };
        match stored_pointer(services, &candidate).await? {
            Some(older) if pointer::complete(services, &candidate).await.is_ok() => {
                pointer::point(services, &older, true).await?;
                return Ok(Repointed { latest: Some(row.id) });
            }
            _ => {
                let data =
                    json!({ "snapshot": row.id, "what": "it is not complete in the bucket, so `latest` does not go to it" });
                ctx.event(Level::Warn, "retract.passed_over", data).await?;
            }
        }
    }
    pointer::take_away(services, &network, &id).await?;
    Ok(Repointed { latest: None })
}

/// The pointer as it was when the snapshot was promoted, with its signature beside it.
pub(super) async fn stored_pointer(services: &Services, snapshot: &Reference) -> Result<Option<Pointer>, StepError> {
    let key = Key::Pointer(SnapshotPath::new(&snapshot.network, &snapshot.id));
    let Some((bytes, _)) = services.store.get(&key).await.map_err(classify)? else { return Ok(None) };
    let pointer: Option<Pointer> = serde_json::from_slice(&bytes).ok();
    Ok(pointer.filter(|pointer| Reference::of(pointer) == *snapshot))
}
