//! The processes that share the control database, as operators see them. Invariant: a process that has not been seen for
//! [`GONE_AFTER_S`] seconds is called gone; it may only be cut off, so its leases decide what becomes of its steps.
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    client::Client,
    model::{RunId, words},
};

/// Seconds without a beat; they come about every second.
pub(crate) const GONE_AFTER_S: i32 = 15;

words! {
    /// Where a process stands.
    WorkerState {
        /// It beats.
        Alive = "alive",
        /// It was asked to stop and finishes what it has begun.
        Draining = "draining",
        /// It does not beat.
        Gone = "gone",
    }
}

/// A process.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Its id, never used again.
    pub id: String,
    /// Its machine.
    pub host: String,
    /// Its process id there.
    pub pid: i32,
    /// Version of its binary.
    pub version: String,
    /// What it was started for.
    pub roles: Vec<String>,
    /// The queues it takes steps from.
    pub queues: Vec<String>,
    /// `[{"name": …, "version": …}]`: the workflows it can run.
    pub workflows: Value,
    /// Where it stands.
    pub state: WorkerState,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// Its last beat.
    pub seen_at: DateTime<Utc>,
    /// The steps it runs.
    #[sqlx(json)]
    pub running: Vec<RunningStep>,
}

/// A step under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningStep {
    /// Its run.
    pub run_id: RunId,
    /// The run's workflow.
    pub workflow: String,
    /// The step's name.
    pub step: String,
    /// A child's place in its group, else 0.
    pub index: i32,
    /// The number of the attempt.
    pub attempt: i32,
}

impl Client {
    /// The processes that beat within the last day, those seen last first, each with what it runs.
    ///
    /// # Errors
    /// The database's.
    pub async fn workers(&self) -> sqlx::Result<Vec<Worker>> {
        let sql = "select w.id, w.host, w.pid, w.version, w.roles, w.queues, w.workflows, w.started_at, w.seen_at, \
             case when w.seen_at < now() - make_interval(secs => $1) then 'gone' \
                  when w.draining then 'draining' else 'alive' end as state, \
             coalesce((select jsonb_agg(jsonb_build_object('runId', s.run_id, 'workflow', r.workflow, 'step', s.name, \
                     'index', s.index, 'attempt', s.attempt) order by s.id) \
                 from snapshots.step s join snapshots.run r on r.id = s.run_id \
                 where s.state = 'running' and s.worker = w.id), '[]') as running \
             from snapshots.worker w order by w.seen_at < now() - make_interval(secs => $1), w.started_at desc, w.id";
        sqlx::query_as(sql).bind(GONE_AFTER_S).fetch_all(&self.pool).await
    }
}
