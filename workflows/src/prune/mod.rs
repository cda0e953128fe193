//! Pruning: what is too old leaves the lists, and what nobody names any more leaves the bucket, each after a grace time.
//!
//! mark → sweep → report. A snapshot expires by policy; its objects go a grace time later. A chunk goes when no manifest in the
//! bucket names it, and two looks, a grace time apart, have seen that. Invariants: nothing goes on the word of one listing;
//! one manifest that cannot be read, or that the listing lacks, stops everything; nothing goes while a snapshot is being cut.

mod full;
mod look;
mod mark;
mod policy;
mod rows;
mod sweep;

use engine::{Ctx, Level, Queue, StartRun, StepError, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};

pub use policy::Keep;

/// Name of the workflow in the ledger.
pub const NAME: &str = "prune";

/// What a prune run is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    pub network: Option<String>,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// True if nothing was touched.
    pub dry_run: bool,
    /// Snapshots that stay.
    pub kept: Vec<String>,
    /// Snapshots that left the lists now; their objects stay for the grace time.
    pub expired: Vec<String>,
    /// Snapshots whose objects went.
    pub removed: Vec<String>,
    /// Chunks that no manifest names.
    pub unreferenced: usize,
    /// Those of them that went, since they have been unreferenced for the grace time.
    pub chunks: usize,
    /// Size of what went.
    pub bytes: u64,
    /// Uploads that were begun, forgotten, and aborted now.
    pub uploads: usize,
    /// The same for snapshots of the `full` profile.
    #[serde(default)]
    pub full: FullPruned,
    /// Why no chunk was looked at, if none was.
    pub skipped: Option<String>,
}

/// What went, or would go, of the `full` profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FullPruned {
    /// Snapshots that stay.
    pub kept: Vec<String>,
    /// Snapshots whose grace time begins.
    pub expired: Vec<String>,
    /// Snapshots whose objects went.
    pub removed: Vec<String>,
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("mark", mark::run).step("sweep", sweep::run).step("report", report).queue(Queue::Control)
}

/// Resolves the network.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let Params { network, dry_run } = read(NAME, params)?;
        start_on_network(services, NAME, network, |network| json!({ "network": network, "dryRun": dry_run })).await
    }
    .boxed()
}

async fn report(ctx: Ctx<Services>, pruned: Pruned) -> Result<Pruned, StepError> {
    let data = serde_json::to_value(&pruned).map_err(StepError::fail)?;
    ctx.event(Level::Info, "prune.done", data).await?;
    Ok(pruned)
}
