//! What a person decides about a published snapshot: `retract` takes it back, with a reason, and `publish` sends readers to it
//! again.
//!
//! Each is a workflow, so that a crash between the catalog and the pointers is mended by itself. Nothing is deleted: that is
//! pruning's business, after its grace time.

mod publish;
mod retract;

use engine::{Queue, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapshot::key::Key;
use snapshot::manifest::Pointer;

use crate::catalog::{self, SnapshotRow};
use crate::services::Services;
use crate::start::{BadParams, read};

/// Name of the workflow that takes a snapshot back.
pub const RETRACT: &str = "retract";
/// Name of the workflow that sends readers to a snapshot.
pub const PUBLISH: &str = "publish";

/// What is decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The snapshot's network; may be left out where its id says it.
    #[serde(default)]
    pub network: Option<String>,
    /// Its id.
    pub id: String,
    /// Why; readers see it.
    pub reason: String,
    /// Who decided.
    #[serde(default)]
    pub actor: Option<String>,
    /// `publish`: also if a newer one is published.
    #[serde(default)]
    pub back: bool,
}

/// withdraw → repoint.
pub fn retract() -> Workflow<Services> {
    Workflow::named(RETRACT, 1)
        .step("withdraw", retract::withdraw)
        .queue(Queue::Control)
        .step("repoint", retract::repoint)
        .queue(Queue::Control)
}

/// check → point.
pub fn publish() -> Workflow<Services> {
    Workflow::named(PUBLISH, 1).step("check", publish::check).step("point", publish::point).queue(Queue::Control)
}

/// Finds the snapshot, so that an unknown one is refused at once.
pub(crate) fn start_retract(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    start(services, RETRACT, params)
}

/// Finds the snapshot, so that an unknown one is refused at once.
pub(crate) fn start_publish(services: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    start(services, PUBLISH, params)
}

fn start<'a>(services: &'a Services, workflow: &'static str, params: Value) -> BoxFuture<'a, Result<StartRun, BadParams>> {
    async move {
        let wrong = |problem: String| BadParams::Params { workflow, problem };
        let mut decision: Decision = read(workflow, params)?;
        if decision.reason.trim().is_empty() {
            return Err(wrong("reason is empty: say why, readers and operators will ask".into()));
        }
        let found = catalog::known(&services.control, decision.network.as_deref(), &decision.id).await?;
        let row = match found.as_slice() {
            [one] => one,
            [] => return Err(wrong(format!("there is no published or retracted snapshot {}", decision.id))),
            _ => return Err(wrong(format!("several networks have a snapshot {}: add network", decision.id))),
        };
        if workflow == PUBLISH {
            refuse_idle(services, row, &decision).await?;
        }
        let network = row.network.clone();
        decision.network = Some(network.clone());
        let params = serde_json::to_value(decision).map_err(|error| wrong(error.to_string()))?;
        Ok(StartRun::new(workflow, params).unique(network))
    }
    .boxed()
}

/// Refuses a publication after which everything would be as it is: whoever asks for one means something else.
async fn refuse_idle(services: &Services, row: &SnapshotRow, decision: &Decision) -> Result<(), BadParams> {
    let retracted = catalog::retraction(&services.control, Some(&row.network), &row.id).await?.is_some();
    let found = services.store.get(&Key::Latest(row.network.clone())).await?;
    let latest: Option<Pointer> = found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
    let Some(latest) = latest.filter(|_| !retracted && row.promoted_at.is_some()) else { return Ok(()) };
    let (id, there) = (&row.id, &latest.snapshot_id);
    let problem = if there == id {
        format!("{id} is listed, and `latest` points at it already")
    } else if !decision.back && latest.sequence > row.sequence.unsigned_abs() {
        format!(
            "{id} is listed already, and `latest` stays at {there}, which is newer; --back (\"back\": true) moves it backwards"
        )
    } else {
        return Ok(());
    };
    Err(BadParams::Idle { workflow: PUBLISH, problem })
}
