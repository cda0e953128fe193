//! Scrubbing: proves that sealed history still is what was published, in the database and in the bucket.
//!
//! choose → rehash (a child per range) → report. A snapshot takes over ranges whose block hashes and row counts are unchanged;
//! what such a look cannot see, a changed byte in an old row or a rotten object, is found here. A range that differs is marked,
//! so that the next snapshot cuts it anew. Nothing is written to the indexed database.

mod choose;
mod rehash;
mod report;

use engine::{Queue, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};

pub use choose::Chosen;

/// Name of the workflow in the ledger.
pub const NAME: &str = "scrub";
/// Kind of the event that says what differs.
pub const MISMATCH: &str = "scrub.mismatch";
/// Share of the sealed ranges that a run looks at unless it is told: each night.
const NIGHTLY_PERCENT: u32 = 2;

/// What a scrub run is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    pub network: Option<String>,
    /// Share of the sealed ranges to look at, chosen by chance; 100 for all.
    #[serde(default = "nightly")]
    pub percent: u32,
}

fn nightly() -> u32 {
    NIGHTLY_PERCENT
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1)
        .step("choose", choose::run)
        .each("rehash", |chosen: &Chosen| chosen.ranges.clone(), rehash::run)
        .queue(Queue::Cpu)
        .step("report", report::run)
}

/// Checks the share and resolves the network.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let Params { network, percent } = read(NAME, params)?;
        if !(1..=100).contains(&percent) {
            let problem = format!("percent is from 1 to 100, not {percent}");
            return Err(BadParams::Params { workflow: NAME, problem });
        }
        start_on_network(services, NAME, network, |network| json!({ "network": network, "percent": percent })).await
    }
    .boxed()
}
