//! What an engine counts where it happens, in its own process, through the `metrics` facade. Without a recorder it costs next
//! to nothing. What must be read from the database is `figures`' business.
//! Invariant: values of labels come from closed sets: workflows, steps, queues, outcomes; never ids, never texts.
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::{attempt::Claimed, catalog::Catalog, figures, ledger_figures};

const ATTEMPTS: &str = "snapshots_job_attempts_total";
const DURATION: &str = "snapshots_job_attempt_duration_seconds";
const RETRY_DELAY: &str = "snapshots_job_retry_delay_seconds";
const LOST: &str = "snapshots_job_attempts_lost_total";

/// How an attempt ended, for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Retry,
    Dead,
    Cancelled,
    Yielded,
    /// Somebody else held the step by then: nothing was written.
    Fenced,
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Ok, Self::Retry, Self::Dead, Self::Cancelled, Self::Yielded, Self::Fenced];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Yielded => "yielded",
            Self::Fenced => "fenced",
        }
    }
}

/// Says what each metric of the engine means; call it once, after a recorder was installed.
pub fn describe_metrics() {
    describe_counter!(
        ATTEMPTS,
        "Attempts at steps that ended in this process, by workflow and outcome: ok, retry (tried again later), dead (failed \
         for good), cancelled, yielded (given back unspent), fenced (another process held the step by then)."
    );
    describe_counter!(LOST, "Attempts whose process stopped renewing, as found by the sweeps of this process.");
    describe_histogram!(DURATION, Unit::Seconds, "How long attempts at steps took, whatever came of them.");
    describe_histogram!(RETRY_DELAY, Unit::Seconds, "How long failed attempts wait for the next one.");
    figures::describe();
    ledger_figures::describe();
}

/// Brings every series to be, so that a rate is right from the first increase on.
pub(crate) fn begin(catalog: &Catalog) {
    for workflow in catalog.names() {
        for outcome in Outcome::ALL {
            counter!(ATTEMPTS, "kind" => workflow, "outcome" => outcome.word()).increment(0);
        }
    }
    counter!(LOST).increment(0);
}

/// An attempt came to its end; `delay` is how long the step waits for the next one.
pub(crate) fn ended(claimed: &Claimed, outcome: Outcome, took: Duration, delay: Option<Duration>) {
    counter!(ATTEMPTS, "kind" => claimed.workflow.clone(), "outcome" => outcome.word()).increment(1);
    histogram!(DURATION, "kind" => claimed.workflow.clone(), "step" => claimed.name.clone()).record(took.as_secs_f64());
    if let Some(delay) = delay {
        histogram!(RETRY_DELAY).record(delay.as_secs_f64());
    }
}

/// A sweep ended attempts of processes that are gone.
pub(crate) fn lost(attempts: i32) {
    counter!(LOST).increment(u64::from(attempts.unsigned_abs()));
}
