//! What the engine's tests share: a migrated database, engines to start and stop, a claim by hand.
use std::{ops::Deref, sync::Arc, time::Duration};

use engine::{
    Backoff, Catalog, Client, Engine, EngineConfig, RunDetail, RunId, Shutdown, Step, StepKind, Workflow,
    statements::{self, Claimant, Claimed},
};
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::support::{self, TestDatabase};

/// Retries soon, so that tests need not be patient.
pub(crate) const FAST: Backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(50) };

/// How long a test waits for anything before it fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub(crate) async fn poll(what: &str, condition: impl AsyncFnMut() -> bool) {
    support::wait_until(DEADLINE, what, condition).await;
}

/// A control database with workflows.
pub(crate) struct Bench<S> {
    pub(crate) pool: PgPool,
    pub(crate) client: Client,
    pub(crate) config: EngineConfig,
    workflows: fn() -> Vec<Workflow<S>>,
    _database: TestDatabase,
}

impl<S: Send + Sync + 'static> Bench<S> {
    pub(crate) async fn new(workflows: fn() -> Vec<Workflow<S>>) -> Self {
        let database = support::database().await;
        let pool = engine::control_pool(database.url(), 16).await.unwrap();
        engine::migrate(&pool).await.unwrap();
        let client = Client::new(pool.clone(), Catalog::of(&workflows()).unwrap());
        let config =
            EngineConfig { lease: Duration::from_secs(1), sweep_interval: Duration::from_millis(100), ..EngineConfig::default() };
        Self { pool, client, config, workflows, _database: database }
    }

    /// An engine at work in this process.
    pub(crate) fn worker(&self, services: S) -> Worker<S> {
        let services = Arc::new(services);
        let engine = Engine::new(self.pool.clone(), Arc::clone(&services), (self.workflows)(), self.config.clone());
        let shutdown = Shutdown::default();
        let task = tokio::spawn(engine.unwrap().run(shutdown.clone()));
        Worker { services, shutdown, task }
    }

    /// Waits for the end of a run.
    pub(crate) async fn finished(&self, run: RunId) -> Detail {
        let waited = tokio::time::timeout(DEADLINE, self.client.wait(run)).await;
        let detail = self.client.detail(run).await.unwrap().unwrap();
        assert!(waited.is_ok(), "the run does not end: {detail:#?}");
        Detail(detail)
    }

    pub(crate) fn claimant(&self, worker: &str, lease: Duration) -> Claimant {
        let names: Vec<String> = self.client.catalog().names().map(str::to_owned).collect();
        let versions = vec![1; names.len()];
        Claimant { worker: worker.to_owned(), lease, workflows: names, versions }
    }

    /// Claims the oldest step that is ready, as `worker`, for a minute.
    pub(crate) async fn claim_any(&self, worker: &str) -> Claimed {
        self.claim_for(worker, Duration::from_secs(60)).await.expect("a step is ready")
    }

    pub(crate) async fn claim_for(&self, worker: &str, lease: Duration) -> Option<Claimed> {
        let sql = "select id from snapshots.step where state = 'ready' and run_at <= now() order by id limit 1";
        let step: Option<i64> = sqlx::query_scalar(sql).fetch_optional(&self.pool).await.unwrap();
        statements::claim(&self.pool, engine::StepId(step?), &self.claimant(worker, lease)).await.unwrap()
    }
}

/// A running engine.
pub(crate) struct Worker<S> {
    pub(crate) services: Arc<S>,
    pub(crate) shutdown: Shutdown,
    task: JoinHandle<Result<(), engine::EngineError>>,
}

impl<S> Worker<S> {
    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.soft.cancel();
        self.ended().await;
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the engine ends").unwrap().unwrap();
    }

    /// As kill -9: nothing is written any more, leases run out.
    pub(crate) async fn kill(self) {
        self.shutdown.hard.cancel();
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A run's detail, with its steps by name.
#[derive(Debug)]
pub(crate) struct Detail(RunDetail);

impl Detail {
    /// The task or group of that name.
    pub(crate) fn step(&self, name: &str) -> &Step {
        self.steps.iter().find(|step| step.name == name && step.kind != StepKind::Child).expect("the step is there")
    }
}

impl Deref for Detail {
    type Target = RunDetail;

    fn deref(&self) -> &RunDetail {
        &self.0
    }
}
