//! The words of the statements: a lease, what a claim brings, how an attempt may end. Touches no database.
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::model::{LogLine, Progress, RunId, StepId, StepKind, StepState};

/// The right to write about a step: its id and the token of its latest claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Lease {
    /// The step.
    pub step: StepId,
    /// Greater than the token of every earlier claim of any step.
    pub token: i64,
}

/// Whether a fenced write took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It did.
    Done,
    /// Somebody else holds the step by now, or it has ended: nothing was changed.
    Fenced,
}

/// Who claims, and what it is able to run.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The worker's id in the ledger.
    pub worker: String,
    /// How long a claim or renewal holds.
    pub lease: Duration,
    /// Names of the workflows it knows …
    pub workflows: Vec<String>,
    /// … and their versions, side by side.
    pub versions: Vec<i32>,
}

/// A step under lease, with what its attempt needs.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    pub(crate) id: StepId,
    pub(crate) lease_token: i64,
    /// Its run.
    pub run_id: RunId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: StepKind,
    /// A child's place, else 0.
    pub index: i32,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// Attempts allowed.
    pub max_attempts: i32,
    pub(crate) timeout_ms: Option<i64>,
    /// Of a child; the input of others is made of `inputs`.
    pub(crate) input: Option<Value>,
    /// Outputs of its predecessors by name, if it has any.
    pub(crate) inputs: Option<Value>,
    /// The run's workflow.
    pub workflow: String,
    /// The run's version of it.
    pub version: i32,
    pub(crate) unique_key: Option<String>,
    pub(crate) params: Value,
    pub(crate) created_at: DateTime<Utc>,
}

impl Claimed {
    /// The right to write about it.
    #[must_use]
    pub const fn lease(&self) -> Lease {
        Lease { step: self.id, token: self.lease_token }
    }
}

/// What an attempt says of itself with a renewal and at its end. What is absent stays as it was stored before.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How far it is.
    pub progress: Option<Progress>,
    /// Its last log lines, oldest first.
    pub log: Option<Vec<LogLine>>,
}

/// How an attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Try again after the wait, or fail if this was the last attempt; `error` says why.
    Retry {
        /// The wait; by default the step's own backoff.
        after: Option<Duration>,
        /// Why, causes included.
        error: String,
    },
    /// No further attempt.
    Failed {
        /// Why, causes included.
        error: String,
    },
    /// Given back unspent.
    Yielded {
        /// Not claimed again before this has passed.
        after: Duration,
    },
}

/// What became of a step whose attempt ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// `ready` again, `failed` or `cancelled`.
    pub state: StepState,
    /// How long the step waits if it is ready again.
    pub wait: Option<Duration>,
}

/// What a renewal brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Go on.
    Held,
    /// Give the step back where that can be done: its workflow or queue is paused.
    Paused,
    /// Give the step back where that can be done: this worker is to take no more work.
    Draining,
    /// Go on to a quick end: the run was cancelled.
    CancelRequested,
    /// Somebody else holds the step, or it has ended: stop.
    Lost,
}

/// What a sweep mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Swept {
    /// Attempts ended since their lease had expired.
    pub expired: i32,
    /// Steps rung for since nobody would have heard of them.
    pub rung: i32,
    /// Milliseconds until the next lease expires, unless it is renewed; negative: one that could not be ended has.
    pub next_ms: Option<i64>,
}
