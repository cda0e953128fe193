//! The nightly drill: an older snapshot, drawn by chance, is restored as a stranger would and proved.
//!
//! choose → drill. What was proved when it was published may have rotted since: a chunk that the bucket lost, a server or a tool
//! that was upgraded. A drill that fails moves nothing; it records the outcome beside the snapshot and raises an alarm.

mod choose;

use engine::{Ctx, Queue, StartRun, StepError, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use snapshot::drill::{Mode, Record};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};
use crate::{drill, status};
use choose::Chosen;

/// Name of the workflow in the ledger.
pub const NAME: &str = "restore_drill";

/// What a drill is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    pub network: Option<String>,
    /// Snapshot; `None`: an older one, drawn by chance.
    #[serde(default)]
    pub id: Option<String>,
    /// How much of it; `None`: as the service is set.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1)
        .step("choose", choose::run)
        .queue(Queue::Control)
        .step("drill", run)
        .queue(Queue::Cpu)
        .attempts(drill::ATTEMPTS)
}

/// The outcome; none where nothing is promoted yet.
async fn run(ctx: Ctx<Services>, chosen: Chosen) -> Result<Option<Record>, StepError> {
    let Some(snapshot) = chosen.snapshot else { return Ok(None) };
    let mode = ctx.params::<Params>()?.mode.unwrap_or(ctx.services().settings.drill);
    let record = drill::prove(&ctx, &snapshot, mode).await?;
    status::write(ctx.services(), &snapshot.network).await;
    Ok(Some(record))
}

/// Resolves the network and the mode, so that the run says what it does.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let Params { network, id, mode } = read(NAME, params)?;
        let mode = mode.unwrap_or(services.settings.drill);
        if mode == Mode::Off {
            let problem =
                "drills are switched off here (--drill off); say how much to restore: {\"mode\": \"full\"} or sample".into();
            return Err(BadParams::Nothing { workflow: NAME, problem });
        }
        start_on_network(services, NAME, network, |network| json!({ "network": network, "id": id, "mode": mode })).await
    }
    .boxed()
}
