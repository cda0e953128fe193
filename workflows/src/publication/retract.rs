//! Steps of `retract`: the catalog and a notice beside the snapshot say why; `latest` goes to the newest that is left,
//! and `status.json` names that one.

use bytes::Bytes;
use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapshot::key::{Key, SnapshotPath};

use super::Decision;
use crate::services::Services;
use crate::step_error::classify;
use crate::{decisions, pointer, status};

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
    let left = pointer::leave(ctx.services(), &withdrawn.network, &withdrawn.id).await?;
    for (id, why) in left.passed_over {
        ctx.event(Level::Warn, "retract.passed_over", json!({ "snapshot": id, "what": why })).await?;
    }
    status::write(ctx.services(), &withdrawn.network).await;
    Ok(Repointed { latest: left.latest })
}
