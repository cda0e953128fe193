//! Resealing: compresses sealed history once more, at a level that is worth its time for what never changes.
//!
//! One step, chunk after chunk, with one core and in bounded memory: a background job. The rows keep their digest; the smaller
//! object is stored beside the larger, and the next snapshot refers to it. Each finished chunk is a row, so that an attempt after
//! a crash goes on behind it.

mod recompress;

use engine::{Queue, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};

/// Name of the workflow in the ledger.
pub const NAME: &str = "reseal";

/// What a reseal run is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    pub network: Option<String>,
    /// Chunks to compress at most; `None`: all that are left.
    #[serde(default)]
    pub chunks: Option<usize>,
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("recompress", recompress::run).queue(Queue::Cpu)
}

/// Resolves the network.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let Params { network, chunks } = read(NAME, params)?;
        start_on_network(services, NAME, network, |network| json!({ "network": network, "chunks": chunks })).await
    }
    .boxed()
}
