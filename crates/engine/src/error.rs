//! What can go wrong, and what happens next. Texts never repeat their source; [`chain`] renders the whole line of
//! causes, once, where the ledger or a log takes it.
use std::error::Error;

use crate::{
    crontab::CronError,
    model::{RunId, RunState},
    once::KeyError,
    prepare::PrepareError,
    redact::storable,
};

/// A cause of any type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a step gives up this attempt. The step picks the variant, where the knowledge is.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// May pass: the step is tried again after its backoff, up to its number of attempts.
    #[error(transparent)]
    Retry(BoxError),
    /// No retry mends this: the step fails now.
    #[error(transparent)]
    Fail(BoxError),
    /// The process is stopping: give the step back without spending an attempt.
    #[error("the step was given back because its worker is stopping")]
    Yield,
}

impl StepError {
    /// For `map_err`: an error that may pass.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::Retry(error.into())
    }

    /// For `map_err`: an error that no retry mends.
    pub fn fail(error: impl Into<BoxError>) -> Self {
        Self::Fail(error.into())
    }
}

/// Why a run was not started. Nothing was written, and the caller's transaction is still usable, except after
/// [`StartError::Database`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An unfinished run of this workflow holds the same unique key.
    #[error("a run of this workflow with the same key is not finished yet: {run}")]
    AlreadyRunning {
        /// The unfinished run.
        run: RunId,
    },
    /// No such workflow in this binary.
    #[error("there is no workflow `{name}`; known are: {known}")]
    UnknownWorkflow {
        /// What was asked for.
        name: String,
        /// The names this binary knows, comma-separated.
        known: String,
    },
    /// Priority outside 0..=1000.
    #[error("priority {priority} is outside 0..=1000")]
    BadPriority {
        /// What was asked for.
        priority: i32,
    },
    /// The ledger could not be written.
    #[error("cannot write the run to the control database")]
    Database(#[from] sqlx::Error),
}

/// Why a run was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No run with this id.
    #[error("there is no run {run}")]
    UnknownRun {
        /// What was asked for.
        run: RunId,
    },
    /// It has already ended.
    #[error("run {run} has already ended: {state}")]
    Finished {
        /// The run.
        run: RunId,
        /// How it ended.
        state: RunState,
    },
    /// The ledger could not be written.
    #[error("cannot write the cancellation to the control database")]
    Database(#[from] sqlx::Error),
}

/// Why a worker was not told to drain.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// No worker with this id; rows of workers that have not been seen for a day are deleted.
    #[error("there is no worker `{worker}`")]
    UnknownWorker {
        /// What was asked for.
        worker: String,
    },
    /// The ledger could not be written.
    #[error("cannot write to the control database")]
    Database(#[from] sqlx::Error),
}

/// Why a run was not retried. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// No run with this id.
    #[error("there is no run {run}")]
    UnknownRun {
        /// What was asked for.
        run: RunId,
    },
    /// It is still under way.
    #[error("run {run} has not ended ({state}): wait for it or cancel it first")]
    NotFinished {
        /// The run.
        run: RunId,
        /// Where it stands.
        state: RunState,
    },
    /// It has no failed step to go on from.
    #[error("run {run} succeeded, no step of it failed: retry it from the start to do it again")]
    NothingFailed {
        /// The run.
        run: RunId,
    },
    /// Its steps were planned by code this binary does not have.
    #[error(
        "run {run} was planned by version {version} of workflow `{workflow}`, which this binary does not have: retry it from the start"
    )]
    OtherVersion {
        /// The run.
        run: RunId,
        /// Its workflow.
        workflow: String,
        /// The version that planned it.
        version: i32,
    },
    /// The idempotency key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The run cannot be started (again).
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ledger could not be written.
    #[error("cannot write the retry to the control database")]
    Database(#[from] sqlx::Error),
}

/// Why a workflow or queue was not paused or resumed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// No such workflow in this binary.
    #[error("there is no workflow `{name}`; known are: {known}")]
    UnknownWorkflow {
        /// What was asked for.
        name: String,
        /// The names this binary knows, comma-separated.
        known: String,
    },
    /// Somebody paused it before.
    #[error("{target} is paused already: {reason}")]
    AlreadyPaused {
        /// What.
        target: String,
        /// Why it is.
        reason: String,
    },
    /// It is not paused.
    #[error("{target} is not paused")]
    NotPaused {
        /// What.
        target: String,
    },
    /// The ledger could not be written.
    #[error("cannot write the pause to the control database")]
    Database(#[from] sqlx::Error),
}

/// Why a run was not started once. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The run cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why a limit was not set. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// No such workflow in this binary.
    #[error("there is no workflow `{name}`; known are: {known}")]
    UnknownWorkflow {
        /// What was asked for.
        name: String,
        /// The names this binary knows, comma-separated.
        known: String,
    },
    /// No steps at all, or absurdly many.
    #[error("a limit of {slots} is outside 1..=10000; to stop a workflow, pause it")]
    OutOfRange {
        /// What was asked for.
        slots: u32,
    },
    /// The control database failed.
    #[error("cannot write the limit to the control database")]
    Database(#[from] sqlx::Error),
}

/// Why a schedule was not changed or run. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// No schedule of this name.
    #[error("there is no schedule `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Somebody paused it before.
    #[error("schedule `{name}` is paused already: {reason}")]
    AlreadyPaused {
        /// The schedule.
        name: String,
        /// Why it is.
        reason: String,
    },
    /// It is not paused.
    #[error("schedule `{name}` is not paused")]
    NotPaused {
        /// The schedule.
        name: String,
    },
    /// Its expression or time zone is not valid.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// No run can be made of its parameters.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The idempotency key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its run cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control database failed.
    #[error("cannot read or write the schedule in the control database")]
    Database(#[from] sqlx::Error),
}

/// Why waiting for the end of a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// No run with this id.
    #[error("there is no run {run}")]
    UnknownRun {
        /// What was asked for.
        run: RunId,
    },
    /// The ledger could not be read.
    #[error("cannot read the run from the control database")]
    Database(#[from] sqlx::Error),
}

/// Why the control database could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The role may not create what is needed.
    #[error("cannot create {what} in the control database; the role needs CREATE on the database")]
    Prepare {
        /// The thing.
        what: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// The doorbell tables could not be made or brought up to date.
    #[error("cannot set up the doorbell tables (schema apalis)")]
    Doorbell(#[source] BoxError),
    /// A migration of schema `snapshots` failed.
    #[error("cannot migrate schema snapshots of the control database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Why the engine could not be built or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A workflow is not sound.
    #[error("cannot run the workflows of this binary")]
    Workflow(#[from] crate::catalog::WorkflowError),
    /// A setting makes no sense.
    #[error("engine setting `{setting}` {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The worker could not be registered.
    #[error("cannot register this worker in the control database")]
    Register(#[source] sqlx::Error),
}

/// Renders an error and all its causes, without passwords and fit to be stored: `cannot upload: connection refused`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries do repeat their source; saying it twice helps nobody.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    storable(&text)
}

/// The text of a panic's payload.
#[must_use]
pub(crate) fn panic_text(payload: Box<dyn std::any::Any + Send>) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("panicked: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the plan")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_chain_names_every_cause() {
        let error = StepError::retry(Outer(std::io::Error::other("disk on fire")));
        assert_eq!(chain(&error), "cannot read the plan: disk on fire");
    }

    #[test]
    fn a_cause_already_quoted_is_not_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("upload failed: {0}")]
        struct Quoting(#[source] std::io::Error);
        assert_eq!(chain(&Quoting(std::io::Error::other("no route"))), "upload failed: no route");
    }
}
