//! The words of the statements: a lease, what a claim brings, how an attempt may end. Touches no database.
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    backoff::Backoff,
    model::{RunId, StepId, StepKind},
};

/// The right to write about a step: its id and the token of its latest claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub(crate) backoff_base_ms: i64,
    pub(crate) backoff_cap_ms: i64,
    pub(crate) timeout_ms: Option<i64>,
    pub(crate) input: Option<Value>,
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

    pub(crate) const fn backoff(&self) -> Backoff {
        backoff(self.backoff_base_ms, self.backoff_cap_ms)
    }
}

const fn backoff(base_ms: i64, cap_ms: i64) -> Backoff {
    Backoff { base: Duration::from_millis(base_ms.unsigned_abs()), cap: Duration::from_millis(cap_ms.unsigned_abs()) }
}

/// How an attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Try again after the wait; `error` says why.
    Retry {
        /// The wait.
        after: Duration,
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

/// What a renewal brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Go on.
    Held,
    /// Go on to a quick end: the run was cancelled.
    CancelRequested,
    /// Somebody else holds the step, or it has ended: stop.
    Lost,
}

/// A step whose holder did not renew.
#[derive(sqlx::FromRow)]
pub(crate) struct Expired {
    pub(crate) id: StepId,
    pub(crate) lease_token: i64,
    pub(crate) attempt: i32,
    pub(crate) max_attempts: i32,
    pub(crate) backoff_base_ms: i64,
    pub(crate) backoff_cap_ms: i64,
    pub(crate) worker: String,
}

impl Expired {
    /// Ready again at once after the first loss, with backoff after more, failed at the cap; `dice` is in `0.0..1.0`.
    pub(crate) fn ending(&self, dice: f64) -> Ending {
        let error =
            format!("worker {} stopped renewing its lease in attempt {} of {}", self.worker, self.attempt, self.max_attempts);
        if self.attempt >= self.max_attempts {
            return Ending::Failed { error };
        }
        let earlier = self.attempt.unsigned_abs().saturating_sub(1);
        let after = match earlier {
            0 => Duration::ZERO,
            losses => backoff(self.backoff_base_ms, self.backoff_cap_ms).delay(losses, dice),
        };
        Ending::Retry { after, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(attempt: i32) -> Ending {
        let expired = Expired {
            id: StepId(1),
            lease_token: 1,
            attempt,
            max_attempts: 3,
            backoff_base_ms: 2000,
            backoff_cap_ms: 60_000,
            worker: "w".to_owned(),
        };
        expired.ending(0.5)
    }

    #[test]
    fn the_first_crash_is_taken_over_at_once_the_next_after_a_wait_and_the_last_is_final() {
        let error = |n| format!("worker w stopped renewing its lease in attempt {n} of 3");
        assert_eq!(lost(1), Ending::Retry { after: Duration::ZERO, error: error(1) });
        assert_eq!(lost(2), Ending::Retry { after: Duration::from_secs(2), error: error(2) });
        assert_eq!(lost(3), Ending::Failed { error: error(3) });
    }
}
