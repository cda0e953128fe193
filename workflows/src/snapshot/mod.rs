//! The nightly snapshot: from a growing database to a new `latest` that anybody can restore with stock tools.
//!
//! Ranges of heights that are unchanged since the snapshot before are not read: their chunks are taken over (see `reuse`).
//!
//! plan → dump (a child per height range) → compress (splice the archive) → checksum → upload → publish → promote.
//! Nothing is visible to readers before `publish` writes the manifest, and `latest` moves only in `promote`; every step
//! may run twice, because what it writes is named by content or written under a condition.

mod checksum;
mod compress;
mod dump;
mod plan;
mod promote;
mod publish;
mod reuse;
mod signing;
mod upload;

use engine::{Queue, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapshot::height::{self, HeightError};

use crate::services::Services;
use crate::start::BadParams;

pub use plan::Plan;

/// Name of the workflow in the ledger.
pub const NAME: &str = "snapshot";

/// What a snapshot run is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    pub network: Option<String>,
    /// Read every range, also those that are known to be unchanged.
    #[serde(default)]
    pub full: bool,
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1)
        .step("plan", plan::run)
        .each("dump", |plan: &Plan| plan.jobs(), dump::run)
        .queue(Queue::Cpu)
        .step("compress", compress::run)
        .step("checksum", checksum::run)
        .step("upload", upload::run)
        .step("publish", publish::run)
        .step("promote", promote::run)
}

/// Resolves the network, so that an unknown one is refused at once and two runs of one network cannot be under way.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let wrong = |problem: String| BadParams::Params { workflow: NAME, problem };
        let params = if params.is_null() { Params::default() } else { parse(params).map_err(wrong)? };
        let wanted = params.network.as_deref().or(services.settings.network.as_deref());
        let mut conn = services.indexed.acquire().await?;
        let network = height::network(&mut conn, wanted).await.map_err(|error| match error {
            HeightError::Database(error) => BadParams::Database(error),
            HeightError::NoNetwork => BadParams::Nothing { workflow: NAME, problem: error.to_string() },
            other => wrong(other.to_string()),
        })?;
        let params = Params { network: Some(network.clone()), ..params };
        let params = serde_json::to_value(params).map_err(|error| wrong(error.to_string()))?;
        Ok(StartRun::new(NAME, params).unique(network))
    }
    .boxed()
}

fn parse(params: Value) -> Result<Params, String> {
    serde_json::from_value(params).map_err(|error| error.to_string())
}
