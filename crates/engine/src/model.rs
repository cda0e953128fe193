//! The rows of the ledger as others see them. Reading them is `queries`' business, changing them `statements`'.
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A run's id: a UUID of version 7, so ids sort by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A step's id, unique over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct StepId(pub i64);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes an enum whose members are words in snake case, in JSON, in text and in the ledger.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(rename_all = "snake_case")]
        #[sqlx(type_name = "text", rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All members.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word the ledger and JSON use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use words;

words! {
    /// Where a run stands.
    RunState {
        /// No step was claimed yet.
        Queued = "queued",
        /// A step is running or may run now.
        Running = "running",
        /// Nothing runs; a step waits for its next attempt.
        Retrying = "retrying",
        /// An operator stopped it for a while.
        Paused = "paused",
        /// Every step succeeded.
        Succeeded = "succeeded",
        /// A step failed for good.
        Failed = "failed",
        /// An operator ended it.
        Cancelled = "cancelled",
    }
}

impl RunState {
    /// Whether the run has ended.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

words! {
    /// Where a step stands.
    StepState {
        /// Predecessors have not all succeeded.
        Blocked = "blocked",
        /// May be claimed, once its `run_at` has come.
        Ready = "ready",
        /// Claimed under a lease.
        Running = "running",
        /// A group whose children are under way.
        Waiting = "waiting",
        /// Done.
        Succeeded = "succeeded",
        /// Out of attempts, or an error no retry mends.
        Failed = "failed",
        /// Its run was cancelled.
        Cancelled = "cancelled",
        /// A predecessor failed, so it never ran.
        Skipped = "skipped",
    }
}

words! {
    /// What a step is.
    StepKind {
        /// An ordinary step.
        Task = "task",
        /// Plans children, then waits for all of them.
        Group = "group",
        /// One of a group's.
        Child = "child",
    }
}

words! {
    /// The resource a step mostly uses; each has its own doorbell queue and number of slots. The words are stored: who
    /// renames one adds a migration that writes the former word into `snapshots.queue_name`.
    Queue {
        /// Short bookkeeping.
        Control = "control",
        /// Network and disk.
        Io = "io",
        /// Compression and hashing.
        Cpu = "cpu",
        /// Waiting for other people's servers, which may be slow and must not keep our own work from a slot.
        Deliver = "deliver",
    }
}

words! {
    /// How serious a line of the job log is.
    Level {
        /// For the developer.
        Debug = "debug",
        /// For the reader of the log.
        Info = "info",
        /// Something an operator should know.
        Warn = "warn",
        /// Something failed.
        Error = "error",
    }
}

/// How far a running step is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 while unknown.
    pub total: u64,
    /// What is counted: `bytes`, `rows`, `blocks`.
    pub unit: String,
    /// Units per second over the last half minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// A line that an attempt logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: DateTime<Utc>,
    /// How serious.
    pub level: Level,
    /// The module that said it.
    pub target: String,
    /// Message and fields.
    pub text: String,
}

/// A run.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its workflow's name.
    pub workflow: String,
    /// The workflow's version that planned it.
    pub version: i32,
    /// What it was started with.
    pub params: Value,
    /// No two unfinished runs of a workflow share it.
    pub unique_key: Option<String>,
    /// Greater goes first.
    pub priority: i32,
    /// Where it stands.
    pub state: RunState,
    /// When a retrying run is tried again.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// The run that started it.
    pub parent_run_id: Option<RunId>,
    /// When somebody asked to end it.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Why it failed, causes included.
    pub error: Option<String>,
    /// The schedule that started it.
    pub schedule: Option<String>,
    /// The tick of the schedule; none when somebody ran the schedule by hand.
    pub fire_at: Option<DateTime<Utc>>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its first step was claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub done_at: Option<DateTime<Utc>>,
}

/// A step of a run.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its id.
    pub id: StepId,
    /// Its run.
    pub run_id: RunId,
    /// Its name in the workflow.
    pub name: String,
    /// What it is.
    pub kind: StepKind,
    /// A child's place in its group, else 0.
    pub index: i32,
    /// Where it stands.
    pub state: StepState,
    /// The resource it uses.
    pub queue: Queue,
    /// A group's children, once planned.
    pub children_total: Option<i32>,
    /// A group's children that have not ended.
    pub children_left: Option<i32>,
    /// A group's children that failed for good.
    pub children_failed: Option<i32>,
    /// Attempts begun.
    pub attempt: i32,
    /// Attempts allowed.
    pub max_attempts: i32,
    /// Not claimed before.
    pub run_at: DateTime<Utc>,
    /// When it is tried again, after an attempt that failed.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Until when its worker holds it, unless renewed.
    pub lease_until: Option<DateTime<Utc>>,
    /// Who holds or held it last.
    pub worker: Option<String>,
    /// How far it is.
    #[sqlx(json(nullable))]
    pub progress: Option<Progress>,
    /// What it returned.
    pub output: Option<Value>,
    /// Why its last failed attempt failed, causes included.
    pub error: Option<String>,
    /// First claim.
    pub started_at: Option<DateTime<Utc>>,
    /// End.
    pub done_at: Option<DateTime<Utc>>,
}

/// One attempt at a step. Rows are never overwritten.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The step.
    pub step_id: StepId,
    /// From 1; repeated after a yield, which spends none.
    pub no: i32,
    /// Who tried.
    pub worker: String,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// When it ended; none while it runs.
    pub done_at: Option<DateTime<Utc>>,
    /// `succeeded`, `retry`, `failed`, `yielded`, `lost` (the lease lapsed) or `cancelled`.
    pub outcome: Option<String>,
    /// Why, causes included.
    pub error: Option<String>,
    /// How long it took, or has taken so far, in milliseconds.
    pub duration_ms: i64,
    /// How far it was at its end, or is now.
    #[sqlx(json(nullable))]
    pub progress: Option<Progress>,
    /// Its last log lines, oldest first; of one that runs, as of its latest renewal.
    #[sqlx(json(nullable))]
    pub log: Option<Vec<LogLine>>,
    /// Of its OpenTelemetry trace, where traces are exported.
    pub trace_id: Option<String>,
}

/// A line of a run's log.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows with time, over all runs.
    pub id: i64,
    /// The run.
    pub run_id: RunId,
    /// The step, if it is about one.
    pub step_id: Option<StepId>,
    /// When.
    pub at: DateTime<Utc>,
    /// How serious.
    pub level: Level,
    /// What, as a dotted word: `step.retry`.
    pub kind: String,
    /// The rest.
    pub data: Value,
}

/// A run with all its steps, in the order they were planned.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// Its steps; children follow by index.
    pub steps: Vec<Step>,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
}
