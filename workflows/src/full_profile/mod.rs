//! The `full` profile: every table of the indexed database at one moment, encrypted for its operators, in a bucket of its own.
//!
//! dump → promote. It is apart from the public snapshot, so that neither waits for the other or fails with it. Each is cut whole:
//! encrypted chunks share nothing. Invariants: all tables, the definitions and the tip are read in one transaction; nothing leaves the
//! process that a recipient's identity is not needed to read, but for names, sizes, heights and times.

mod dump;
mod promote;

use engine::{Queue, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};

/// Name of the workflow in the ledger.
pub const NAME: &str = "full_profile";

/// What a run is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    network: Option<String>,
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("dump", dump::run).queue(Queue::Cpu).step("promote", promote::run)
}

/// Resolves the network; refuses where nobody could read the snapshot, or nobody could believe it.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let nothing = |problem: &str| Err(BadParams::Nothing { workflow: NAME, problem: problem.to_owned() });
        if services.full.is_none() {
            return nothing("no recipient is configured: set SNAPSHOTS_FULL_RECIPIENTS_FILE where the service runs");
        }
        if services.signing.is_none() {
            return nothing(
                "there is no signing key, and a restore refuses what is not signed: make one with `snapshots signing-key generate`",
            );
        }
        let Params { network } = read(NAME, params)?;
        start_on_network(services, NAME, network, |network| json!({ "network": network })).await
    }
    .boxed()
}
