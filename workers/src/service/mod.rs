//! One running service: its servers, its pools, its roles, and how it ends.
//!
//! Order of start: directory and lock, database, migrations, bucket, listener, engine. Order of end: listener, engine,
//! pools, embedded servers. Invariant: nothing this process started outlives [`Service::stop`].

mod backends;
mod found;
mod roles;
mod scratch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::auth::Access;
use api::{ApiState, Delivery, Splices};
use axum::Router;
use chain::Ingest;
use engine::{Engine, Shutdown};
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows::services::{Services, Settings};

use crate::config::{ArchiveChoice, Role, Servers, ServiceArgs};
use crate::exit::{Exit, Failure};
use crate::exposition;
use crate::traces::Traces;

pub use backends::{Backends, Keep, connect};
pub use found::Found;

/// How long running steps may take to come to a good place to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// A running service.
pub struct Service {
    /// Address of the API, for example `http://127.0.0.1:3900`.
    pub url: String,
    /// What steps and handlers use.
    pub services: Services,
    /// Starts and shows runs.
    pub engine: engine::Client,
    backends: Backends,
    shutdown: Shutdown,
    listener: CancellationToken,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
    traces: Traces,
}

impl Service {
    /// Starts everything.
    ///
    /// # Errors
    /// The first thing that is not as it must be, with what to do about it; what was started before is stopped.
    pub async fn start(args: &ServiceArgs, servers: &Servers, keep: Keep) -> anyhow::Result<Self> {
        let access = access(args)?;
        let traces = Traces::start()?;
        let backends = Backends::open(args, servers, keep).await?;
        match Self::with_backends(args, servers, &backends, access).await {
            Ok(running) => Ok(running.into_service(backends, traces)),
            Err(error) => {
                backends.close().await;
                Err(error)
            }
        }
    }

    async fn with_backends(
        args: &ServiceArgs,
        servers: &Servers,
        backends: &Backends,
        access: Access,
    ) -> anyhow::Result<Running> {
        let bind = TcpListener::bind(args.listen).await.map_err(|error| {
            let failure = Failure::caused(Exit::Conflict, format!("cannot listen on {}", args.listen), error);
            failure.hint("another service may run there: choose another address with --listen, or port 0 for a free one")
        })?;
        let url = format!("http://{}", bind.local_addr()?);
        let delivery = if servers.store.is_none() { Delivery::Service } else { Delivery::Bucket };
        let public_base_url = servers.public_base_url.clone().unwrap_or_else(|| url.clone());
        let service_base_url = service_base_url(args, servers, &public_base_url)?;
        let signing = servers.signing.for_service(backends.dir(), servers.store.is_none())?;
        let settings = settings(args, servers, (public_base_url, service_base_url));
        let services = backends.services((args, servers), settings, signing).await?;
        // Before anybody counts.
        let recorder = exposition::install()?;
        let shutdown = Shutdown::default();
        let workflows = workflows::all().into_iter().map(|registered| registered.workflow).collect();
        let engine = Engine::new(services.control.clone(), services.clone(), workflows, roles::engine_config(args))?
            .prepared_by(workflows::preparing(services.clone()))
            .measured_by(workflows::figures::source(services.clone()));
        let client = engine.client();
        if args.has(Role::Scheduler) {
            let schedules = roles::schedules(args, services.full.is_some());
            client.ensure_schedules(&schedules).await.context("cannot write the schedules")?;
        }
        Found { url: url.clone(), pid: std::process::id() }.write(backends.dir())?;
        let mut tasks = vec![tokio::spawn(work(engine, shutdown.clone()))];
        let listener = CancellationToken::new();
        let stopping = listener.clone();
        let exposition = exposition::exposition(recorder.clone(), &services);
        let splices = Splices::default();
        let state =
            ApiState { services: services.clone(), engine: client.clone(), delivery, splices, access, exposition, stopping };
        let routes = routes(args, state);
        tasks.push(tokio::spawn(listen(bind, routes, listener.clone())));
        let keep = listener.clone().run_until_cancelled_owned(exposition::keep(recorder));
        tasks.push(tokio::spawn(keep.map(|_| Ok(()))));
        if args.has(Role::Deliver) {
            let relay = listener.clone().run_until_cancelled_owned(workflows::notify::relay(services.clone()));
            tasks.push(tokio::spawn(relay.map(|_| Ok(()))));
        }
        Ok(Running { url, services, engine: client, shutdown, listener, tasks })
    }

    /// Where the service keeps its data.
    pub fn dir(&self) -> &std::path::Path {
        self.backends.dir()
    }

    /// Waits until the engine or the listener ends though nobody asked it to: a service without one only looks alive. Why it did.
    pub async fn broken(&mut self) -> anyhow::Error {
        let (ended, which, _) = futures::future::select_all(self.tasks.iter_mut()).await;
        // What has given its result must not be waited for again.
        drop(self.tasks.swap_remove(which));
        let cause = match ended {
            Ok(Ok(())) => anyhow::anyhow!("it came to its end"),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        };
        let failure = Failure::caused(Exit::Failed, "a part of the service ended by itself", cause);
        failure.hint("mend what it names, then start the service again: runs go on where they were").into()
    }

    /// Ends the service: running steps get 20 s to come to a good place, or none if `now` fires first.
    pub async fn stop(self, now: impl Future<Output = ()>) {
        self.listener.cancel();
        self.shutdown.soft.cancel();
        let mut tasks = self.tasks;
        let ended = futures::future::join_all(tasks.iter_mut());
        let in_time = tokio::select! {
            _ = ended => true,
            () = tokio::time::sleep(DRAIN) => false,
            () = now => false,
        };
        if !in_time {
            self.shutdown.hard.cancel();
            tasks.iter().for_each(JoinHandle::abort);
        }
        self.traces.stop().await;
        self.services.reading.close().await;
        self.services.indexed.close().await;
        self.services.control.close().await;
        Found::remove(self.backends.dir());
        self.backends.close().await;
    }
}

/// A service before it owns its backends.
struct Running {
    url: String,
    services: Services,
    engine: engine::Client,
    shutdown: Shutdown,
    listener: CancellationToken,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Running {
    fn into_service(self, backends: Backends, traces: Traces) -> Service {
        let Self { url, services, engine, shutdown, listener, tasks } = self;
        Service { url, services, engine, backends, shutdown, listener, tasks, traces }
    }
}

/// A node posts its blocks without a key, so whoever reaches the ingest role can write the chain tables.
fn access(args: &ServiceArgs) -> Result<Access, Failure> {
    if args.listen.ip().is_loopback() {
        return Ok(Access::Loopback);
    }
    if args.has(Role::Ingest) {
        let message =
            format!("refusing to listen on {} with the ingest role, which takes blocks without authentication", args.listen);
        let failure = Failure::new(Exit::Refused, message);
        return Err(
            failure.hint("leave it out with --role api,worker,scheduler,deliver and run it in a process of its own on loopback")
        );
    }
    Ok(Access::Keys)
}

async fn work(engine: Engine<Services>, shutdown: Shutdown) -> anyhow::Result<()> {
    engine.run(shutdown).await.context("the worker stopped")
}

/// Where readers reach what this service makes itself. With a bucket of its own that is where they reach everything.
fn service_base_url(args: &ServiceArgs, servers: &Servers, public_base_url: &str) -> Result<String, Failure> {
    let needed = servers.store.is_some() && args.archive != ArchiveChoice::Every && args.has(Role::Worker);
    match &servers.public_service_url {
        Some(url) => Ok(url.clone()),
        None if needed => {
            let message = "archives that are not in the bucket are made by this service, and PUBLIC_SERVICE_URL does not say where readers reach it";
            let failure = Failure::new(Exit::Usage, message);
            Err(failure.hint("set PUBLIC_SERVICE_URL to this service's public address, or store every archive: --archive every"))
        }
        None => Ok(public_base_url.to_owned()),
    }
}

/// `urls`: where the bucket and where this service can be read by anyone.
fn settings(args: &ServiceArgs, servers: &Servers, urls: (String, String)) -> Settings {
    let (public_base_url, service_base_url) = urls;
    Settings {
        network: args.source.network.clone(),
        confirmations: args.source.confirmations,
        columns: args.source.column_rules(),
        archive: args.archive.mode(),
        drill: args.drill.drill.mode(),
        keep: workflows::prune::Keep {
            daily: args.life.keep_daily,
            weekly: args.life.keep_weekly,
            monthly: args.life.keep_monthly,
        },
        prune_grace: hours(args.life.prune_grace_hours),
        lagging_after: hours(args.life.lagging_hours),
        stale_after: hours(args.life.stale_hours),
        latest_valid: args.source.latest_valid(),
        receivers: servers.receivers.clone(),
        public_base_url,
        service_base_url,
    }
}

fn hours(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 3_600)
}

fn routes(args: &ServiceArgs, state: ApiState) -> Router {
    let mut routes = api::metrics(state.clone());
    if args.has(Role::Ingest) {
        let network = args.source.network.clone().unwrap_or_else(|| "mainnet".into());
        routes = routes.merge(api::observer(Arc::new(Ingest::new(state.services.indexed.clone(), network))));
    }
    if args.has(Role::Api) {
        routes = routes.merge(api::router(state));
    }
    api::finish(routes)
}

async fn listen(bind: TcpListener, routes: Router, stop: CancellationToken) -> anyhow::Result<()> {
    axum::serve(bind, routes).with_graceful_shutdown(stop.cancelled_owned()).await.context("the listener stopped")
}
