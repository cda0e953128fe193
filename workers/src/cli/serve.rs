//! `snapshots serve`: all roles in one process, until it is told to stop.

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

pub(crate) async fn run(args: ServeArgs, output: Output) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let mut signals = Signals::listen()?;
    let service = tokio::select! {
        started = Service::start(&args.service, &servers, Keep::Lasting) => started?,
        () = signals.next() => return Ok(()),
    };
    output.result(
        &format!("serving {} from {}", service.url, service.dir().display()),
        &json!({ "url": service.url, "dataDir": service.dir() }),
    );
    signals.next().await;
    output.say("stopping; once more to stop at once");
    service.stop(signals.next()).await;
    Ok(())
}
