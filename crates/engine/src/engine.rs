//! A process's share in running things, by its roles: pull loops per queue, the sweep, the schedules, the registration,
//! and their common end.
//! Invariant: a failing database ends none of them; each is tried again with a capped wait, pull loops under a new name.
use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    catalog::Catalog,
    client::Client,
    error::EngineError,
    figures::{Figures, Source},
    ledger_figures, meter,
    model::Queue,
    prepare::Prepare,
    pull::pull,
    registry::Registration,
    retention::{Retention, Tidier},
    runner::Runner,
    scheduler::Scheduler,
    statements::Claimant,
    sweep::{SLOW, Sweeper},
    together::Together,
    unheard::Held,
    wake::Wakes,
    workflow::Workflow,
};

/// How an engine is asked to end.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Claim nothing more; running steps may yield or finish.
    pub soft: CancellationToken,
    /// Drop what still runs; its leases expire and others take over. Implies `soft`.
    pub hard: CancellationToken,
}

/// What an engine is told about its machine and its patience.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This machine's name, as operators know it.
    pub host: String,
    /// This binary's version.
    pub version: String,
    /// Steps of queue `control` at once.
    pub control_slots: usize,
    /// Steps of queue `io` at once.
    pub io_slots: usize,
    /// Steps of queue `cpu` at once.
    pub cpu_slots: usize,
    /// Steps of queue `deliver` at once.
    pub deliver_slots: usize,
    /// How many steps of a queue one claim takes at most, as far as slots are free. One where nothing is said, which spreads long
    /// steps best over machines; with more, short steps take far fewer transactions.
    pub claims: HashMap<Queue, usize>,
    /// What this process was started for, as operators know it; shown, and otherwise without effect.
    pub roles: Vec<String>,
    /// The queues to take steps from. With none, and without `fires`, the process is only seen to be there.
    pub queues: Vec<Queue>,
    /// Whether to fire schedules.
    pub fires: bool,
    /// How long a step is held without a renewal; renewed every third of it. Bounds the takeover after a crash.
    pub lease: Duration,
    /// Time between sweeps.
    pub sweep_interval: Duration,
    /// After how long without a live doorbell a ready step is rung for again.
    pub doorbell_lost_after: Duration,
    /// How long a run of a version that no worker knows waits for one before it fails.
    pub stranded_after: Duration,
    /// Time between two looks at figures for monitoring; one process of all computes them.
    pub figures_interval: Duration,
    /// How long what has ended is kept.
    pub retention: Retention,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control_slots: 4,
            io_slots: 8,
            cpu_slots: std::thread::available_parallelism().map_or(2, usize::from),
            deliver_slots: 8,
            claims: HashMap::new(),
            roles: Vec::new(),
            queues: Queue::ALL.to_vec(),
            fires: true,
            lease: Duration::from_secs(4),
            sweep_interval: Duration::from_secs(1),
            doorbell_lost_after: Duration::from_secs(5),
            stranded_after: Duration::from_secs(60),
            figures_interval: Duration::from_secs(15),
            retention: Retention::default(),
        }
    }
}

impl EngineConfig {
    pub(crate) const fn slots(&self, queue: Queue) -> usize {
        match queue {
            Queue::Control => self.control_slots,
            Queue::Io => self.io_slots,
            Queue::Cpu => self.cpu_slots,
            Queue::Deliver => self.deliver_slots,
        }
    }

    pub(crate) fn claims(&self, queue: Queue) -> usize {
        self.claims.get(&queue).copied().unwrap_or(1)
    }

    /// Whether to take part in the sweep: whoever does any work does.
    const fn sweeps(&self) -> bool {
        !self.queues.is_empty() || self.fires
    }

    fn check(&self) -> Result<(), EngineError> {
        let fault = |setting, problem| Err(EngineError::Setting { setting, problem });
        if Queue::ALL.iter().any(|queue| self.slots(*queue) == 0) {
            return fault("slots", "must be at least 1 for every queue");
        }
        if Queue::ALL.iter().any(|queue| self.claims(*queue) == 0) {
            return fault("claims", "must be at least 1 for every queue");
        }
        if self.lease < Duration::from_millis(300) {
            return fault("lease", "must be at least 300 ms, or renewals come too late");
        }
        if self.sweep_interval.is_zero() || self.figures_interval.is_zero() {
            return fault("sweep_interval and figures_interval", "must not be zero");
        }
        Ok(())
    }
}

/// Runs workflows against one control database, together with any number of engines elsewhere.
pub struct Engine<S> {
    config: EngineConfig,
    catalog: Catalog,
    pool: PgPool,
    services: Arc<S>,
    workflows: HashMap<&'static str, Arc<Workflow<S>>>,
    sources: Vec<Source>,
}

impl<S: Send + Sync + 'static> Engine<S> {
    /// An engine at rest. The database must have been made ready with [`crate::migrate`].
    ///
    /// # Errors
    /// A workflow that is not sound, a setting that makes no sense.
    pub fn new(
        pool: PgPool,
        services: impl Into<Arc<S>>,
        workflows: Vec<Workflow<S>>,
        config: EngineConfig,
    ) -> Result<Self, EngineError> {
        config.check()?;
        let catalog = Catalog::of(&workflows)?;
        let sources = vec![ledger_figures::source(pool.clone(), catalog.clone())];
        let workflows = workflows.into_iter().map(|workflow| (workflow.name, Arc::new(workflow))).collect();
        Ok(Self { config, catalog, pool, services: services.into(), workflows, sources })
    }

    /// Runs that this engine starts of its own accord are made by `prepare`.
    #[must_use]
    pub fn prepared_by(self, prepare: Prepare) -> Self {
        Self { catalog: self.catalog.prepared_by(prepare), ..self }
    }

    /// Figures of `source` are computed and shown beside the engine's own.
    #[must_use]
    pub fn measured_by(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Starts, cancels and reads runs.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.pool.clone(), self.catalog.clone())
    }

    /// Works until asked to end: returns when, after `soft`, no step of this engine runs any more, or at once after
    /// `hard`.
    ///
    /// # Errors
    /// The control database refuses the registration. Later outages are waited out.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), EngineError> {
        let registration = Arc::new(Registration::new(&self.config, &self.catalog));
        registration.insert(&self.pool).await.map_err(EngineError::Register)?;
        let tend = self.tend(&registration);
        let figures = self.figures(&registration);
        let fire = self.fire(shutdown.soft.clone());
        let (pool, config) = (self.pool.clone(), self.config.clone());
        let runner = Arc::new(self.into_runner(&registration, shutdown.clone()));
        let wakes = Wakes::default();
        let work = async {
            pull(&config, &runner, &wakes).await;
            runner.running.close();
            runner.running.wait().await;
        };
        let note_drain = async {
            shutdown.soft.cancelled().await;
            if let Err(error) = registration.drain(&pool).await {
                warn!(%error, "cannot note that this worker is draining");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work => info!("all steps of this worker have ended"),
            () = shutdown.hard.cancelled() => info!("stopping hard; leases of running steps will expire"),
            () = tend => {}
            () = fire => {}
            () = figures => {}
            () = registration.keep(&pool, config.sweep_interval) => {}
            () = listen(&config, &wakes, &pool) => {}
            () = runner.held.give_back_unheard(&pool, &runner.claimant) => {}
            () = note_drain => {}
        }
        // Steps look at the same token; this only waits for their tasks to be gone.
        runner.running.close();
        runner.running.wait().await;
        if !shutdown.hard.is_cancelled() {
            registration.remove(&pool).await;
        }
        Ok(())
    }

    /// The sweep and what is beside it; never ends.
    fn tend(&self, registration: &Arc<Registration>) -> impl Future<Output = ()> + use<S> {
        let (sweeper, tidier) = (self.sweeper(), self.tidier(Arc::clone(registration)));
        let sweeps = self.config.sweeps();
        async move {
            if sweeps {
                tokio::join!(sweeper.run(), tidier.run());
            }
            std::future::pending().await
        }
    }

    /// Computes and shows figures; never ends.
    fn figures(&self, registration: &Registration) -> impl Future<Output = ()> + use<S> {
        meter::begin(&self.catalog);
        let (pool, interval, sources) = (self.pool.clone(), self.config.figures_interval, self.sources.clone());
        Figures { pool, worker: registration.id.clone(), interval, sources }.run()
    }

    /// Fires schedules until the process is asked to stop; never ends.
    fn fire(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<S> {
        let (pool, catalog) = (self.pool.clone(), self.catalog.clone());
        let scheduler = self.config.fires.then(|| Scheduler { pool, catalog, interval: self.config.sweep_interval });
        async move {
            if let Some(scheduler) = scheduler {
                stop.run_until_cancelled(scheduler.run()).await;
            }
            std::future::pending().await
        }
    }

    fn sweeper(&self) -> Sweeper {
        Sweeper {
            pool: self.pool.clone(),
            interval: self.config.sweep_interval,
            lease: self.config.lease,
            lost_after: self.config.doorbell_lost_after,
            stranded_after: self.config.stranded_after,
        }
    }

    fn tidier(&self, registration: Arc<Registration>) -> Tidier {
        Tidier {
            pool: self.pool.clone(),
            catalog: self.catalog.clone(),
            interval: self.config.sweep_interval * SLOW,
            retention: self.config.retention.clone(),
            registration,
        }
    }

    fn into_runner(self, registration: &Registration, shutdown: Shutdown) -> Runner<S> {
        let (workflows, versions) = self.catalog.versions();
        let claimant = Claimant { worker: registration.id.clone(), lease: self.config.lease, workflows, versions };
        Runner {
            pool: self.pool,
            services: self.services,
            workflows: self.workflows,
            claimant,
            draining: registration.draining.subscribe(),
            shutdown,
            running: TaskTracker::new(),
            held: Arc::<Held>::default(),
            together: Together::default(),
        }
    }
}

/// Hears of doorbells; never ends.
async fn listen(config: &EngineConfig, wakes: &Wakes, pool: &PgPool) {
    if !config.queues.is_empty() {
        wakes.listen(pool).await;
    }
    std::future::pending().await
}
