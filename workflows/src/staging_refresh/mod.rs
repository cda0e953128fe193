//! A staging database with yesterday's chain: the newest public snapshot beside the database that is there, tenants' rows by rule, then a
//! switch by rename.
//!
//! restore → mask → switch. Not for the `full` profile: a service has no identity that could open it. Invariants: the indexed and the
//! control database are never touched; a database that no refresh made is never renamed or dropped; whoever uses staging meets either the
//! old database or the new one, whole and masked; the old one stays for a while.

mod databases;
mod mask;
mod restore;
mod sessions;
mod switch;

use engine::{StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::newest::start_on_network;
use crate::services::Services;
use crate::start::{BadParams, read};

/// Name of the workflow in the ledger.
pub const NAME: &str = "staging_refresh";
/// How long the database before stays, unless a run is told.
const KEEP_HOURS: u32 = 24;

/// What a run is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Network; `None`: the service's own.
    #[serde(default)]
    network: Option<String>,
    /// Snapshot id; `None`: the newest.
    #[serde(default)]
    snapshot: Option<String>,
    /// Hours for which databases that were switched away stay.
    #[serde(default = "keep_hours")]
    keep_hours: u32,
}

fn keep_hours() -> u32 {
    KEEP_HOURS
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("restore", restore::run).step("mask", mask::run).step("switch", switch::run)
}

/// Refuses where nothing is configured, or nobody could believe the snapshot. One run at a time.
pub(crate) fn starter(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let nothing = |problem: &str| Err(BadParams::Nothing { workflow: NAME, problem: problem.to_owned() });
        if services.staging.is_none() {
            return nothing("no staging database is configured: set SNAPSHOTS_STAGING_URL where the service runs");
        }
        if services.signing.is_none() {
            return nothing(
                "snapshots are not signed, and a restore refuses such: make keys with `snapshots signing-key generate`",
            );
        }
        let Params { network, snapshot, keep_hours } = read(NAME, params)?;
        let params = |network: &str| json!({ "network": network, "snapshot": snapshot, "keepHours": keep_hours });
        // There is one staging database, whatever the network.
        Ok(start_on_network(services, NAME, network, params).await?.unique("staging"))
    }
    .boxed()
}
