//! `snapshots serve`: all roles in one process, until it is told to stop or a part of it breaks.

use clap::Args;
use serde_json::json;

use super::signals::Signals;
use crate::config::{Servers, ServiceArgs};
use crate::output::Output;
use crate::service::{Keep, Service};

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Starts a service, or nothing if a signal comes meanwhile: half a start would leave a database server behind, so it is
/// finished and then undone, unless a second signal insists.
pub(super) async fn start(
    args: &ServiceArgs,
    servers: &Servers,
    keep: Keep,
    signals: &mut Signals,
) -> anyhow::Result<Option<Service>> {
    let mut starting = std::pin::pin!(Service::start(args, servers, keep));
    tokio::select! {
        started = &mut starting => return started.map(Some),
        () = signals.next() => {}
    }
    tokio::select! {
        started = &mut starting => started?.stop(signals.next()).await,
        () = signals.next() => {}
    }
    Ok(None)
}

pub(crate) async fn run(args: ServeArgs, output: Output) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let mut signals = Signals::listen()?;
    let Some(mut service) = start(&args.service, &servers, Keep::Lasting, &mut signals).await? else { return Ok(()) };
    output.result(
        &format!("serving {} from {}", service.url, service.dir().display()),
        &json!({ "url": service.url, "dataDir": service.dir() }),
    );
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        broken = service.broken() => Err(broken),
    };
    output.say_aside("stopping; once more to stop at once");
    service.stop(signals.next()).await;
    ended
}
