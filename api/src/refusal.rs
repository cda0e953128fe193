//! From the errors of engine and workflows to answers: 404 what is not there, 409 what is in the wrong state, 422 what can
//! never be, 503 what may work later. Whatever is refused has changed nothing.

use axum::http::StatusCode;
use engine::{CancelError, DrainError, KeyError, OnceError, PauseError, PrepareError, RetryError, ScheduleError, StartError};
use workflows::BadParams;

use crate::body::unfit;
use crate::problem::Problem;

fn conflict(code: &'static str, error: &impl std::error::Error) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, error.to_string())
}

impl From<BadParams> for Problem {
    fn from(error: BadParams) -> Self {
        match error {
            BadParams::Database(source) => Self::of_database("the indexed database does not answer", &source),
            BadParams::Bucket(source) => source.into(),
            other => of_params(&other),
        }
    }
}

fn of_params(error: &BadParams) -> Problem {
    match error {
        BadParams::UnknownWorkflow { .. } => Problem::not_found("WORKFLOW_NOT_FOUND", error.to_string()),
        BadParams::Params { .. } => unfit(error.to_string()),
        BadParams::Nothing { .. } => conflict("NOTHING_TO_DO", error),
        BadParams::Idle { .. } => conflict("NOTHING_CHANGES", error),
        BadParams::Bucket(source) => Problem::unavailable("the bucket does not answer", source),
        BadParams::Database(source) => Problem::of_database("the indexed database does not answer", source),
    }
}

impl From<PrepareError> for Problem {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Refused(why) => match why.downcast_ref::<BadParams>() {
                Some(params) => of_params(params),
                None => unfit(why.to_string()),
            },
            PrepareError::Unavailable(why) => Self::unavailable("what the run is about cannot be asked", &*why),
        }
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        match error {
            StartError::AlreadyRunning { run } => {
                let detail = format!("run {run} of this workflow is already under way");
                Self::new(StatusCode::CONFLICT, "ALREADY_RUNNING", detail).with_run(run)
            }
            StartError::UnknownWorkflow { .. } => Self::not_found("WORKFLOW_NOT_FOUND", error.to_string()),
            StartError::BadPriority { .. } => unfit(error.to_string()),
            StartError::Database(source) => source.into(),
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Malformed => Self::bad_request("VALIDATION_ERROR", error.to_string()),
            KeyError::Reused { run } => {
                let reused = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", error.to_string());
                reused.with_run(run)
            }
            KeyError::Database(source) => source.into(),
        }
    }
}

impl From<OnceError> for Problem {
    fn from(error: OnceError) -> Self {
        match error {
            OnceError::Key(key) => key.into(),
            OnceError::Start(start) => start.into(),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::UnknownRun { .. } => Self::not_found("RUN_NOT_FOUND", error.to_string()),
            CancelError::Finished { .. } => conflict("ALREADY_FINISHED", &error),
            CancelError::Database(source) => source.into(),
        }
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::UnknownRun { .. } => Self::not_found("RUN_NOT_FOUND", error.to_string()),
            RetryError::NotFinished { .. } => conflict("NOT_FINISHED", &error),
            RetryError::NothingFailed { .. } => conflict("NOTHING_FAILED", &error),
            RetryError::OtherVersion { .. } => conflict("OTHER_VERSION", &error),
            RetryError::Key(key) => key.into(),
            RetryError::Start(start) => start.into(),
            RetryError::Database(source) => source.into(),
        }
    }
}

impl From<DrainError> for Problem {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::UnknownWorker { .. } => Self::not_found("WORKER_NOT_FOUND", error.to_string()),
            DrainError::Database(source) => source.into(),
        }
    }
}

impl From<PauseError> for Problem {
    fn from(error: PauseError) -> Self {
        match error {
            PauseError::UnknownWorkflow { .. } => Self::not_found("WORKFLOW_NOT_FOUND", error.to_string()),
            PauseError::AlreadyPaused { .. } => conflict("ALREADY_PAUSED", &error),
            PauseError::NotPaused { .. } => conflict("NOT_PAUSED", &error),
            PauseError::Database(source) => source.into(),
        }
    }
}

impl From<ScheduleError> for Problem {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::Unknown { .. } => Self::not_found("SCHEDULE_NOT_FOUND", error.to_string()),
            ScheduleError::AlreadyPaused { .. } => conflict("ALREADY_PAUSED", &error),
            ScheduleError::NotPaused { .. } => conflict("NOT_PAUSED", &error),
            ScheduleError::Cron(_) => unfit(error.to_string()),
            ScheduleError::Prepare(prepare) => prepare.into(),
            ScheduleError::Key(key) => key.into(),
            ScheduleError::Start(start) => start.into(),
            ScheduleError::Database(source) => source.into(),
        }
    }
}
