//! From a doorbell to the ledger: claim the step, run its function, write how it ended.
//!
//! A step runs in a task of the engine, not of the doorbell's worker: when the database fails the worker, the step goes
//! on. Invariant: whatever the function does (return, panic, hang past its timeout), exactly one ending is written, and
//! only while the lease holds.
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use serde_json::Value;
use sqlx::PgPool;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span, debug, error, error_span, info, warn};

use crate::{
    capture::{self, SPAN},
    ctx::{Ctx, Signals},
    engine::Shutdown,
    error::{StepError, chain, panic_text},
    lease,
    meter::{self, Outcome},
    model::{Queue, StepId, StepKind, StepState},
    statements::{self, Claimant, Claimed, Ended, Ending, Lease, Report, Written},
    together::Together,
    trace::Trying,
    unheard::Held,
    workflow::{StepDef, Workflow},
};

/// How long a cancelled attempt may take to notice before it is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How long a step that yields without need stays away.
const IDLE_YIELD: Duration = Duration::from_secs(1);

/// All that running steps takes; shared by the workers of an engine.
pub(crate) struct Runner<S> {
    pub(crate) pool: PgPool,
    pub(crate) services: Arc<S>,
    pub(crate) workflows: HashMap<&'static str, Arc<Workflow<S>>>,
    pub(crate) claimant: Claimant,
    /// Whether this worker is to take no more work.
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) shutdown: Shutdown,
    pub(crate) running: TaskTracker,
    pub(crate) held: Arc<Held>,
    /// Completes steps of queues whose steps are claimed together.
    pub(crate) together: Together,
}

/// What an attempt came to.
enum Attempted {
    Output(Value),
    Children(Vec<Value>),
    Ended(StepError),
    /// Cut off from outside: nothing to write but, after a cancellation or timeout, that.
    Cut(&'static str),
}

impl<S: Send + Sync + 'static> Runner<S> {
    /// Answers a doorbell; returns when the step has ended, so that the worker's slots count running steps. The slot
    /// itself goes with the step, which outlives a worker that dies.
    pub(crate) async fn answer(self: Arc<Self>, step: StepId, slots: Arc<Semaphore>) {
        let Ok(slot) = slots.acquire_owned().await else { return };
        if self.shutdown.soft.is_cancelled() {
            return;
        }
        let claiming = self.held.claiming();
        let claimed = match statements::claim(&self.pool, step, &self.claimant).await {
            Ok(claimed) => claimed,
            // Sweep rings again.
            Err(error) => return warn!(step.id = %step, error = chain(&error), "cannot claim the step"),
        };
        claiming.answered();
        let Some(claimed) = claimed else { return debug!(step.id = %step, "stale doorbell, or no slot") };
        // Nothing in `execute` panics but the step, and that is caught.
        let _ = self.spawn(claimed, slot, false).await;
    }

    /// Answers a doorbell of a queue whose steps are claimed together: claims as many steps as slots are free, at most `most`
    /// at a time, until no more are there. Returns then, not at their ends; they hold their slots.
    pub(crate) async fn answer_many(self: Arc<Self>, queue: Queue, slots: Arc<Semaphore>, most: usize) {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            // Steps that were completed together free their slots together: let them.
            tokio::task::yield_now().await;
            if self.shutdown.soft.is_cancelled() || *self.draining.borrow() {
                return;
            }
            let more = std::iter::from_fn(|| Arc::clone(&slots).try_acquire_owned().ok());
            let free: Vec<_> = std::iter::once(slot).chain(more.take(most - 1)).collect();
            let claiming = self.held.claiming();
            let claimed = match statements::claim_many(&self.pool, queue, free.len(), &self.claimant).await {
                Ok(claimed) => claimed,
                Err(error) => return warn!(%queue, error = chain(&error), "cannot claim steps"),
            };
            claiming.answered();
            let are_more = claimed.len() == free.len();
            for (claimed, slot) in claimed.into_iter().zip(free) {
                // Its end is seen by its slot.
                drop(self.spawn(claimed, slot, true));
            }
            if !are_more {
                return;
            }
        }
    }

    /// Runs a claimed step in a task that holds its slot.
    fn spawn(self: &Arc<Self>, claimed: Claimed, slot: OwnedSemaphorePermit, together: bool) -> JoinHandle<()> {
        let claimed = self.renamed(claimed);
        // At level error, so that what is said inside carries these fields whatever is filtered.
        let span = error_span!(parent: None, SPAN, run_id = %claimed.run_id, workflow = claimed.workflow, step = claimed.name,
            index = claimed.index, attempt = claimed.attempt, trace_id = tracing::field::Empty);
        let holding = self.held.hold(claimed.lease());
        let work = Arc::clone(self).execute(claimed, together).instrument(span);
        let hard = self.shutdown.hard.clone();
        self.running.spawn(async move {
            let _held = (slot, holding);
            hard.run_until_cancelled(work).await;
        })
    }

    async fn execute(self: Arc<Self>, claimed: Claimed, together: bool) {
        let lease = claimed.lease();
        let signals = Signals::new(&self.shutdown.soft, capture::tail_of(&Span::current()));
        let keeper = lease::keep(self.pool.clone(), lease, self.claimant.lease, signals.clone());
        let keeper = AbortOnDrop(tokio::spawn(keeper.in_current_span()));
        let begun = Instant::now();
        let mut traced = Trying::begin(&claimed, &self.claimant.worker);
        let attempted = match &mut traced {
            Some(traced) => tokio::join!(self.attempt(&claimed, &signals), traced.link(&self.pool, lease)).0,
            None => self.attempt(&claimed, &signals).await,
        };
        let took = begun.elapsed();
        let mut end = End::of(&claimed, attempted, &signals);
        let (outcome, delay) = self.write(lease, &mut end, &signals, together).await;
        meter::ended(&claimed, outcome, took, delay);
        if let Some(traced) = traced {
            traced.end(outcome.word(), end.error());
        }
        drop(keeper);
    }

    async fn attempt(&self, claimed: &Claimed, signals: &Signals) -> Attempted {
        let Some((workflow, step)) = self.definition(claimed) else {
            let text = format!(
                "version {} of workflow `{}` has no step `{}` in this binary; its steps were changed without a new version",
                claimed.version, claimed.workflow, claimed.name
            );
            return Attempted::Ended(StepError::fail(text));
        };
        let input = input(claimed);
        match (claimed.kind, &step.expand) {
            (StepKind::Group, Some(expand)) => match std::panic::catch_unwind(AssertUnwindSafe(|| expand(input))) {
                Ok(Ok(children)) => Attempted::Children(children),
                Ok(Err(error)) => Attempted::Ended(error),
                Err(payload) => Attempted::Ended(StepError::retry(panic_text(payload))),
            },
            _ => self.call((workflow, step), claimed, input, signals).await,
        }
    }

    fn definition(&self, claimed: &Claimed) -> Option<(&Arc<Workflow<S>>, &StepDef<S>)> {
        let workflow = self.workflows.get(claimed.workflow.as_str())?;
        Some((workflow, workflow.steps.iter().find(|step| step.spec.name == claimed.name)?))
    }

    /// Under the names that the code has by now.
    fn renamed(&self, mut claimed: Claimed) -> Claimed {
        if let Some(workflow) = self.workflows.get(claimed.workflow.as_str()) {
            claimed.name = workflow.present_name(&claimed.name).to_owned();
            if let Some(Value::Object(inputs)) = &mut claimed.inputs {
                let named = std::mem::take(inputs).into_iter();
                *inputs = named.map(|(name, output)| (workflow.present_name(&name).to_owned(), output)).collect();
            }
        }
        claimed
    }

    /// Runs the step's function in a task of its own, which is dropped when the attempt is cut off.
    async fn call(
        &self,
        (workflow, step): (&Arc<Workflow<S>>, &StepDef<S>),
        claimed: &Claimed,
        input: Value,
        signals: &Signals,
    ) -> Attempted {
        let services = Arc::clone(&self.services);
        let ctx = Ctx::new(claimed.clone(), Arc::clone(workflow), services, signals.clone(), self.pool.clone());
        let handler = Arc::clone(&step.handler);
        let work = async move { handler(ctx, input).await }.in_current_span();
        let mut task = AbortOnDrop(tokio::spawn(AssertUnwindSafe(work).catch_unwind()));
        let timeout = claimed.timeout_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
        tokio::select! {
            ended = &mut task.0 => match ended {
                Ok(Ok(Ok(output))) => Attempted::Output(output),
                Ok(Ok(Err(error))) => Attempted::Ended(error),
                Ok(Err(payload)) => Attempted::Ended(StepError::retry(panic_text(payload))),
                Err(error) => Attempted::Ended(StepError::retry(error)),
            },
            () = after(timeout) => {
                signals.cancelled.cancel();
                Attempted::Cut("ran longer than its timeout")
            }
            () = grace(&signals.cancelled) => Attempted::Cut("was cancelled"),
        }
    }

    /// Writes the ending, again and again while the database is away: the work is done and the lease may still hold.
    async fn write(&self, lease: Lease, end: &mut End, signals: &Signals, together: bool) -> (Outcome, Option<Duration>) {
        let log = signals.lines(0).map(|(_, lines)| lines);
        let report = Report { progress: signals.progress(), log };
        let mut wait = Duration::from_millis(100);
        loop {
            let written = match &*end {
                End::Output(output) if together => {
                    self.together.complete(&self.pool, lease, output, &report).await.map(succeeded)
                }
                End::Output(output) => statements::complete(&self.pool, lease, output, &report).await.map(succeeded),
                End::Children(inputs) => statements::plan(&self.pool, lease, inputs, &report).await.map(succeeded),
                End::Without(ending) => {
                    statements::end(&self.pool, lease, ending, &report).await.map(|ended| came_to(ending, ended))
                }
            };
            match written {
                Ok(Some(counted)) => return counted,
                Ok(None) => {
                    info!("the step's ending was not written: another worker holds it by now");
                    return (Outcome::Fenced, None);
                }
                Err(error) if end.error().is_none() && statements::cannot_hold(&error) => {
                    let error = format!("the ledger cannot hold what the step returned: {}", chain(&error));
                    error!(error, "the step failed");
                    *end = End::Without(Ending::Failed { error });
                    continue;
                }
                Err(error) => warn!(error = chain(&error), "cannot write the step's ending, trying again"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }
}

/// A child's own, else what its predecessors returned: the one output, or all by name, or without any the run's parameters.
fn input(claimed: &Claimed) -> Value {
    match (claimed.kind, &claimed.inputs) {
        (StepKind::Child, _) => claimed.input.clone().unwrap_or(Value::Null),
        (_, Some(Value::Object(outputs))) if outputs.len() == 1 => outputs.values().next().cloned().unwrap_or(Value::Null),
        (_, Some(outputs)) => outputs.clone(),
        (_, None) => claimed.params.clone(),
    }
}

/// What is to be written.
enum End {
    Output(Value),
    Children(Vec<Value>),
    Without(Ending),
}

impl End {
    /// Why it came to nothing.
    fn error(&self) -> Option<&str> {
        match self {
            Self::Without(Ending::Retry { error, .. } | Ending::Failed { error }) => Some(error),
            _ => None,
        }
    }

    /// Decides it, and logs the causes, once: they are part of what is stored with the attempt.
    fn of(claimed: &Claimed, attempted: Attempted, signals: &Signals) -> Self {
        let error = match attempted {
            Attempted::Output(output) => return Self::Output(output),
            Attempted::Children(inputs) => return Self::Children(inputs),
            Attempted::Ended(StepError::Yield) => {
                let after = if signals.stopping.is_cancelled() { Duration::ZERO } else { IDLE_YIELD };
                return Self::Without(Ending::Yielded { after });
            }
            Attempted::Ended(error) => error,
            Attempted::Cut(why) => {
                let why = if signals.cancelled_by_operator() { "was cancelled" } else { why };
                StepError::retry(format!("the step {why}"))
            }
        };
        let text = chain(&error);
        if claimed.attempt >= claimed.max_attempts || matches!(error, StepError::Fail(_)) {
            error!(error = text, "the step failed");
            return Self::Without(Ending::Failed { error: text });
        }
        warn!(error = text, "the attempt failed");
        Self::Without(Ending::Retry { after: None, error: text })
    }
}

fn succeeded(written: Written) -> Option<(Outcome, Option<Duration>)> {
    (written == Written::Done).then_some((Outcome::Ok, None))
}

fn came_to(ending: &Ending, ended: Option<Ended>) -> Option<(Outcome, Option<Duration>)> {
    let Ended { state, wait } = ended?;
    Some(match (state, ending) {
        (StepState::Cancelled, _) => (Outcome::Cancelled, None),
        (StepState::Failed, _) => (Outcome::Dead, None),
        (_, Ending::Yielded { .. }) => (Outcome::Yielded, None),
        _ => (Outcome::Retry, wait),
    })
}

async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Resolves some time after the attempt was cancelled, so that a step that listens can end by itself.
async fn grace(cancelled: &CancellationToken) {
    cancelled.cancelled().await;
    tokio::time::sleep(CANCEL_GRACE).await;
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
