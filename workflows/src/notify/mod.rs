//! Tells operators what they must hear of: runs of schedules that failed or found something, and, to a dead man's switch, that
//! a snapshot was promoted.
//!
//! The event that a run's end writes into the ledger is the message. `relay` sees to it that exactly one run of this workflow
//! is started for each; that run posts until somebody answers, so a message arrives once or, if an answer is lost, again under
//! the same id. Addresses and secrets come from the settings at the moment of posting: neither ledger nor log ever has them.

mod message;
mod receivers;
mod relay;

use std::time::Duration;

use engine::{Backoff, Ctx, Queue, StartRun, StepError, Workflow};
use futures::future::{self, BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::services::Services;
use crate::start::{BadParams, read};
use crate::step_error::classify;

pub use receivers::{BadReceiver, Receivers};
pub use relay::relay;

/// Name of the workflow in the ledger.
pub const NAME: &str = "notify";

/// Seconds at first, an hour at last: some eight hours in all.
const ATTEMPTS: u32 = 20;
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(3_600) };

/// What is to be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The event of a run's end; `None`: that this way works.
    #[serde(default)]
    event: Option<i64>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    /// What the receiver answered.
    status: u16,
}

/// One step: post it.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("post", run).queue(Queue::Deliver).attempts(ATTEMPTS).backoff(BACKOFF)
}

async fn run(ctx: Ctx<Services>, params: Params) -> Result<Told, StepError> {
    let Services { control, settings, .. } = ctx.services();
    let receivers = &settings.receivers;
    let told = match params.event {
        None => message::Told::Alarm(message::test(ctx.run_created_at())),
        Some(event) => message::of(control, event).await.map_err(classify)?.ok_or_else(gone)?,
    };
    let status = match told {
        // The id of the run: the same in every attempt.
        message::Told::Alarm(message) => receivers.post(&format!("msg_{}", ctx.run().0.simple()), &message).await,
        message::Told::Heartbeat => receivers.beat().await,
    };
    Ok(Told { status: status.map_err(StepError::retry)? })
}

fn gone() -> StepError {
    StepError::fail(std::io::Error::other("the run that was to be told of is not in the ledger any more"))
}

/// Takes the event, or nothing for a message that tries the way.
pub(crate) fn starter(_: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    let request = read::<Params>(NAME, params).map(|params| StartRun::new(NAME, json!(params)));
    Box::pin(future::ready(request))
}
