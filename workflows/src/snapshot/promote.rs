//! Step `promote`: moves `<network>/latest.json`, and the root's, to the new snapshot by compare-and-swap.
//!
//! The pointer is signed. Its signature lies under the snapshot's own name and is written first, so that no reader meets a new
//! pointer with an old signature. What may be pointed at, and that no pointer goes backwards, is `pointer`'s business.

use bytes::Bytes;
use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::key::Key;

use super::drill::Drilled;
use super::plan::Plan;
use super::publish::put_signed;
use crate::newest::Reference;
use crate::pointer::{Move, Signed};
use crate::services::Services;
use crate::step_error::classify;
use crate::{catalog, dirty, pointer, status};

/// What the run achieved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Promoted {
    network: String,
    id: String,
    block_height: u64,
    url: String,
}

pub(super) async fn run(ctx: Ctx<Services>, drilled: Drilled) -> Result<Promoted, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let services = ctx.services();
    let snapshot = Reference { network: plan.network.clone(), id: plan.id.clone(), manifest_sha256: drilled.manifest_sha256 };
    let signed = if services.signing.is_some() { Signed::Objects } else { Signed::Not };
    let manifest = pointer::complete(services, &snapshot, signed).await?;
    let mut pointer = manifest.pointer(snapshot.manifest_sha256, services.signing.is_some());
    pointer.drill = Some(drilled.drill);
    put_signed(services, &plan, Key::Pointer(plan.path()), Bytes::from(pointer.to_bytes())).await?;
    refuse_withdrawn(services, &plan).await?;
    pointer::point(services, &pointer, Move::Forwards).await?;
    catalog::mark_promoted(&services.control, &plan.network, &plan.id).await.map_err(classify)?;
    // Taken back between the look and the move, nobody else would lead readers away again.
    if let Err(withdrawn) = refuse_withdrawn(services, &plan).await {
        pointer::leave(services, &plan.network, &plan.id).await?;
        return Err(withdrawn);
    }
    dirty::clear(&services.control, &plan.network, plan.sequence).await.map_err(classify)?;
    status::write(services, &plan.network).await;
    Ok(Promoted { network: plan.network, id: plan.id, block_height: pointer.block_height, url: pointer.url })
}

/// A snapshot that somebody took back before it was promoted stays back.
async fn refuse_withdrawn(services: &Services, plan: &Plan) -> Result<(), StepError> {
    let listed = catalog::with_id(&services.control, Some(&plan.network), &plan.id).await.map_err(classify)?;
    if !listed.is_empty() {
        return Ok(());
    }
    let what = format!("{} was taken back or has expired, so `latest` does not go to it", plan.id);
    Err(StepError::fail(std::io::Error::other(what)))
}
