//! The nightly snapshot: from a growing database to a new `latest` that anybody can restore with stock tools.
//!
//! Ranges of heights that are unchanged since the snapshot before are not read: their chunks are taken over (see `reuse`).
//!
//! plan → dump (a child per height range) → compress (splice the archive) → checksum and upload → publish → drill (restore and
//! prove it) → promote.
//! Nothing is visible to readers before `publish` writes the manifest, and `latest` moves only in `promote`; every step
//! may run twice, because what it writes is named by content or written under a condition.

mod archive;
mod checksum;
mod compress;
mod drill;
mod dump;
mod plan;
mod promote;
mod publish;
mod reuse;
mod upload;

use engine::{Queue, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};

pub use plan::Plan;

/// Name of the workflow in the ledger.
pub const NAME: &str = "snapshot";

/// Kind of the event that says why a chain was refused.
pub const AUDIT_FAILED: &str = "snapshot.audit_failed";

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
    Workflow::named(NAME, 2)
        .step("plan", plan::run)
        .each("dump", |plan: &Plan| plan.jobs(), dump::run)
        .queue(Queue::Cpu)
        .step("compress", compress::run)
        .step("checksum", checksum::run)
        .step("upload", upload::run)
        .after(&["compress"])
        .step("publish", publish::run)
        .after(&["checksum", "upload"])
        .step("drill", drill::run)
        .queue(Queue::Cpu)
        .attempts(crate::drill::ATTEMPTS)
        .step("promote", promote::run)
}

/// Resolves the network, so that an unknown one is refused at once and two runs of one network cannot be under way.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let Params { network, full } = read(NAME, params)?;
        start_on_network(services, NAME, network, |network| json!({ "network": network, "full": full })).await
    }
    .boxed()
}
