//! How a run survives: ledger, leases, retries, fan-out and join, doorbells. It knows no snapshot: what a run does is
//! a [`Workflow`] somebody else hands in.
//!
//! The tables of schema `snapshots` are the truth. `apalis.jobs` carries doorbells, messages that say "step 7 may be
//! ready": a doorbell that is lost, late or rung twice changes nothing but the time.
//!
//! Invariants: every write of a step is fenced by the lease token of its latest claim; completion and what it sets off
//! are one transaction; names, never positions, tie rows to code; any process may die at any point.
mod attempt;
mod audit;
mod backoff;
mod capture;
mod catalog;
mod client;
mod consequence;
mod crontab;
mod ctx;
mod defaults;
mod doorbell;
mod drain;
mod engine;
mod error;
mod figures;
mod fire;
mod follow;
mod gauge;
mod lease;
mod ledger_figures;
mod limit;
mod meter;
mod model;
mod moves;
mod once;
mod operations;
mod pause;
mod prepare;
mod pull;
mod queries;
mod redact;
mod registry;
mod retention;
mod retry;
mod runner;
mod schedule;
mod scheduler;
mod setup;
mod start;
pub mod statements;
mod sweep;
mod ticks;
mod together;
mod trace;
mod unheard;
mod wake;
mod workers;
mod workflow;

pub use audit::{AuditEntry, AuditFilter};
pub use backoff::Backoff;
pub use capture::CaptureLayer;
pub use catalog::{Catalog, WorkflowError};
pub use client::Client;
pub use crontab::CronError;
pub use ctx::Ctx;
pub use defaults::ScheduleDefault;
pub use engine::{Engine, EngineConfig, Shutdown};
pub use error::chain as in_full;
pub use error::{
    BoxError, CancelError, DrainError, EngineError, LimitError, OnceError, PauseError, RetryError, ScheduleError, SetupError,
    StartError, StepError, WaitError,
};
pub use figures::{Sample, Source};
pub use fire::Fired;
pub use follow::{BadCursor, EventCursor, Follower};
pub use limit::{Limit, LimitTarget};
pub use meter::describe_metrics;
pub use model::{
    Attempt, Event, Level, LogLine, Progress, Queue, Run, RunDetail, RunId, RunState, Step, StepId, StepKind, StepState,
};
pub use once::{Idempotency, KeyError, Started};
pub use pause::{Pause, PauseTarget};
pub use prepare::{Prepare, PrepareError};
pub use queries::{RunCursor, RunFilter};
pub use redact::redact;
pub use retention::{Pruned, Retention};
pub use retry::RetryFrom;
pub use schedule::{Catchup, Overlap, Schedule, ScheduleChange};
pub use setup::{control_pool, control_pool_options, migrate};
pub use start::StartRun;
pub use ticks::Cron;
pub use workers::{RunningStep, Worker, WorkerState};
pub use workflow::Workflow;
