//! `snapshots create`: starts a run, and with `--wait` follows it to its end.

use clap::Args;
use serde_json::json;

use super::client::{Client, ClientArgs};
use super::signals;
use super::watch::follow;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Network; by default the service's own.
    #[arg(long)]
    network: Option<String>,
    /// Wait until the snapshot is published or has failed.
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(args: CreateArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let mut params = json!({});
    if let Some(network) = &args.network {
        params["network"] = json!(network);
    }
    let started = client.start("/workflows/snapshot/runs", &params).await?;
    let run = started["runId"].as_str().unwrap_or_default().to_owned();
    if !args.wait {
        output.result(&format!("run {run} has started; `snapshots list` shows the snapshot once it is published"), &started);
        return Ok(());
    }
    let hint = format!("the run goes on; follow it with `snapshots run watch {run}`, end it with `snapshots run cancel {run}`");
    let ended = signals::interruptible(follow(&client, &run, output), &hint).await?;
    let snapshot = &ended["snapshot"];
    let text = format!(
        "published {} at height {} ({} bytes)\n{}",
        snapshot["id"].as_str().unwrap_or_default(),
        snapshot["blockHeight"],
        snapshot["sizeBytes"],
        snapshot["url"].as_str().unwrap_or_default()
    );
    output.result(&text, &json!({ "runId": run, "snapshot": snapshot }));
    Ok(())
}
