//! What a step sees of the engine. A step reads its input, the services and earlier outputs, reports progress and
//! notices that it should stop; it cannot touch the ledger otherwise.
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    capture::Tail,
    consequence,
    error::{StepError, panic_text},
    gauge::Gauge,
    model::{Level, LogLine, Progress, RunId, StepId},
    queries,
    statements::{self, Claimed, Lease, Written},
    workflow::Workflow,
};

/// The context of one attempt at one step. Cheap to clone.
pub struct Ctx<S>(Arc<Inner<S>>);

impl<S> Clone for Ctx<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<S> {
    claimed: Claimed,
    workflow: Arc<Workflow<S>>,
    services: Arc<S>,
    signals: Signals,
    pool: PgPool,
}

/// What passes between an attempt and the task that renews its lease.
#[derive(Clone)]
pub(crate) struct Signals {
    /// The attempt is of no use any more: cancelled, lease lost, out of time, or the process stops hard.
    pub(crate) cancelled: CancellationToken,
    /// The step is asked to give itself back: its process is to stop or to drain, or the work is paused.
    pub(crate) stopping: CancellationToken,
    /// Whether `cancelled` was set since the run was cancelled.
    pub(crate) by_operator: Arc<AtomicBool>,
    gauge: Arc<Mutex<Gauge>>,
    tail: Option<Arc<Tail>>,
}

impl Signals {
    /// Of an attempt in a process that is asked to stop by `soft`; `tail` has what it logs.
    pub(crate) fn new(soft: &CancellationToken, tail: Option<Arc<Tail>>) -> Self {
        Self {
            cancelled: CancellationToken::new(),
            stopping: soft.child_token(),
            by_operator: Arc::new(AtomicBool::new(false)),
            gauge: Arc::default(),
            tail,
        }
    }

    /// How far the attempt is.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.gauge().read(Instant::now())
    }

    /// What it logged last, and how many lines in all, if more than `seen`.
    pub(crate) fn lines(&self, seen: u64) -> Option<(u64, Vec<LogLine>)> {
        self.tail.as_ref()?.beyond(seen)
    }

    fn gauge(&self) -> std::sync::MutexGuard<'_, Gauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cancelled_by_operator(&self) -> bool {
        self.by_operator.load(Ordering::Relaxed)
    }
}

impl<S: Send + Sync + 'static> Ctx<S> {
    pub(crate) fn new(claimed: Claimed, workflow: Arc<Workflow<S>>, services: Arc<S>, signals: Signals, pool: PgPool) -> Self {
        Self(Arc::new(Inner { claimed, workflow, services, signals, pool }))
    }

    /// What the workflow's steps share.
    #[must_use]
    pub fn services(&self) -> &S {
        &self.0.services
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.0.claimed.run_id
    }

    /// When the run was asked for: the same in every step and attempt, so names may be made of it.
    #[must_use]
    pub fn run_created_at(&self) -> DateTime<Utc> {
        self.0.claimed.created_at
    }

    /// The workflow's name.
    #[must_use]
    pub fn workflow(&self) -> &str {
        &self.0.claimed.workflow
    }

    /// The key under which no second run of the workflow goes on; for network-bound workflows the network.
    #[must_use]
    pub fn unique_key(&self) -> Option<&str> {
        self.0.claimed.unique_key.as_deref()
    }

    /// The step's name.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.0.claimed.name
    }

    /// The child's place in its fan-out, from 0; 0 for other steps.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.0.claimed.index.unsigned_abs()
    }

    /// The number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.claimed.attempt.unsigned_abs()
    }

    /// Grows with every claim: a store that remembers the greatest it saw can refuse a zombie.
    #[must_use]
    pub fn lease_token(&self) -> i64 {
        self.lease().token
    }

    /// What the run was started with.
    ///
    /// # Errors
    /// [`StepError::Fail`] if the parameters are not a `P`.
    pub fn params<P: DeserializeOwned>(&self) -> Result<P, StepError> {
        serde_json::from_value(self.0.claimed.params.clone()).map_err(StepError::fail)
    }

    /// The output of an earlier step of the run; of a fan-out all children's, by index.
    ///
    /// # Errors
    /// [`StepError::Fail`] if there is no such step, it has not succeeded, or its output is not a `T`.
    pub async fn output<T: DeserializeOwned>(&self, step: &str) -> Result<T, StepError> {
        let names = self.0.workflow.stored_names(step);
        let output = queries::output(&self.0.pool, self.run(), &names).await.map_err(StepError::retry)?;
        let output = output
            .ok_or_else(|| StepError::fail(format!("step `{step}` has no output: it is not there or has not succeeded")))?;
        serde_json::from_value(output).map_err(StepError::fail)
    }

    /// Reports how far the step is; sent with the next renewal of the lease, so calling it often costs nothing.
    pub fn progress(&self, done: u64, total: u64, unit: &'static str) {
        self.0.signals.gauge().set(done, total, unit, Instant::now());
    }

    /// Whether the step is asked to give itself back, since its process is to stop or to drain or the work is paused:
    /// finish the unit, save the state, return [`StepError::Yield`].
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.0.signals.stopping.is_cancelled()
    }

    /// For `select!`: set when the step is asked to give itself back.
    #[must_use]
    pub fn stop_token(&self) -> &CancellationToken {
        &self.0.signals.stopping
    }

    /// Whether the attempt is of no use any more: the run was cancelled, the lease lost, the time over.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.0.signals.cancelled.is_cancelled()
    }

    /// For `select!` and blocking loops: set when the attempt is of no use any more.
    #[must_use]
    pub fn cancel_token(&self) -> &CancellationToken {
        &self.0.signals.cancelled
    }

    /// Writes a line of the run's log. `data` is a JSON object; never secrets, never bulk.
    ///
    /// # Errors
    /// [`StepError::Retry`] if the ledger cannot be written.
    pub async fn event(&self, level: Level, kind: &str, data: Value) -> Result<(), StepError> {
        let about = (self.run(), Some(self.lease().step));
        consequence::log(&self.0.pool, about, level, kind, &data).await.map_err(StepError::retry)
    }

    /// What an earlier attempt, or this one, saved.
    ///
    /// # Errors
    /// [`StepError::Retry`] if the ledger cannot be read, [`StepError::Fail`] if what it holds is not a `T`.
    pub async fn state<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        let state = queries::checkpoint(&self.0.pool, self.lease().step).await.map_err(StepError::retry)?;
        state.map(serde_json::from_value).transpose().map_err(StepError::fail)
    }

    /// Keeps a small value (an upload's id, parts done) for this and later attempts at this step.
    ///
    /// # Errors
    /// [`StepError::Retry`] if the ledger cannot be written or somebody else holds the step by now, [`StepError::Fail`] if
    /// it cannot hold such a value.
    pub async fn save_state<T: Serialize>(&self, state: &T) -> Result<(), StepError> {
        let state = serde_json::to_value(state).map_err(StepError::fail)?;
        match statements::save_checkpoint(&self.0.pool, self.lease(), &state).await {
            Ok(Written::Done) => Ok(()),
            Ok(Written::Fenced) => Err(StepError::retry("another worker holds this step by now")),
            Err(error) if statements::cannot_hold(&error) => Err(StepError::fail(error)),
            Err(error) => Err(StepError::retry(error)),
        }
    }

    /// Runs CPU-bound or blocking work off the async threads. A long loop in it should look at
    /// [`Ctx::cancelled`] and [`Ctx::stopping`], since it cannot be stopped from outside.
    ///
    /// # Errors
    /// What `work` returns; a panic becomes [`StepError::Retry`] with its message.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T, StepError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, StepError> + Send + 'static,
    {
        let span = tracing::Span::current();
        match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
            Ok(result) => result,
            Err(error) => Err(StepError::retry(match error.try_into_panic() {
                Ok(payload) => panic_text(payload),
                Err(error) => error.to_string(),
            })),
        }
    }

    /// The id of the step's row, for logs.
    #[must_use]
    pub fn step_id(&self) -> StepId {
        self.lease().step
    }

    fn lease(&self) -> Lease {
        self.0.claimed.lease()
    }
}
