//! Step `switch`: the new database takes the name of the old one, in one transaction.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};

use super::databases::Staging;
use super::mask::Ready;
use crate::services::Services;

/// What the run achieved.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Switched {
    #[serde(flatten)]
    ready: Ready,
    database: String,
    /// Where the database before is now; `None` if there was none, or if an attempt that died had switched already.
    before: Option<String>,
}

pub(super) async fn run(ctx: Ctx<Services>, ready: Ready) -> Result<Switched, StepError> {
    let mut staging = Staging::open(ctx.services()).await?;
    let run = ctx.run().0;
    let before = match staging.current().await? {
        Some(made_by) if made_by == run => None,
        _ => staging.switch(run, &ready.restored.snapshot).await?,
    };
    Ok(Switched { ready, database: staging.name, before })
}
