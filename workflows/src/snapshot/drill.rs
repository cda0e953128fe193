//! Step `drill`: restores the published snapshot as a stranger would and proves it, before readers are sent to it.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::drill::{Mode, Summary};

use super::plan::Plan;
use super::publish::Published;
use crate::drill;
use crate::newest::Reference;
use crate::services::Services;

/// A manifest, and what was proved of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Drilled {
    /// sha256 (hex) of the manifest's bytes.
    pub(super) manifest_sha256: String,
    /// What the pointer will say.
    pub(super) drill: Summary,
}

pub(super) async fn run(ctx: Ctx<Services>, published: Published) -> Result<Drilled, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let manifest_sha256 = published.manifest_sha256;
    // The setting of this moment: an operator who switches drills off and retries the run means it.
    let drill = match ctx.services().settings.drill {
        Mode::Off => Summary::off(),
        mode => {
            let snapshot = Reference { network: plan.network, id: plan.id, manifest_sha256: manifest_sha256.clone() };
            drill::prove(&ctx, &snapshot, mode).await?.summary()
        }
    };
    Ok(Drilled { manifest_sha256, drill })
}
