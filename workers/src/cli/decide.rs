//! `snapshots retract`, `publish`, `pin` and `unpin`: what a person decides about a snapshot, and why.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::show::snapshot_id;
use super::watch::follow;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Id of the snapshot.
    #[arg(value_parser = snapshot_id)]
    id: String,
    /// Network, where the service has several.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
}

#[derive(Args)]
pub(crate) struct DecideArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why; it goes into the audit log, and readers see it.
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    decide: DecideArgs,
    /// Also if `latest` points at a newer one: moves it backwards. Readers that have seen the newer one refuse the older.
    #[arg(long)]
    back: bool,
}

pub(crate) async fn retract(args: DecideArgs, output: Output) -> anyhow::Result<()> {
    decide(args, "retract", false, output).await
}

pub(crate) async fn publish(args: PublishArgs, output: Output) -> anyhow::Result<()> {
    decide(args.decide, "publish", args.back, output).await
}

async fn decide(args: DecideArgs, verb: &str, back: bool, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.one.client)?;
    let body = json!({ "reason": args.reason, "back": back });
    let started = client.start(&path(&args.one, verb), &body).await?;
    let run = started["runId"].as_str().unwrap_or_default().to_owned();
    let ended = follow(&client, &run, output).await?;
    let latest = ended["result"]["latest"].as_str();
    let result = json!({ "runId": run, "id": args.one.id, "latest": latest });
    output.result(&outcome(&args.one.id, verb, latest), &result);
    Ok(())
}

/// What was done, and what readers are sent to since.
fn outcome(id: &str, verb: &str, latest: Option<&str>) -> String {
    match (verb, latest) {
        ("publish", Some(latest)) if latest == id => format!("{id} is published, and `latest` points at it"),
        ("publish", Some(latest)) => {
            format!("{id} is listed again; `latest` stays at {latest}, which is newer (--back moves it backwards)")
        }
        ("publish", None) => format!("{id} is published"),
        (_, Some(latest)) => format!("{id} was taken back; `latest` points at {latest}"),
        (_, None) => format!("{id} was taken back, and no snapshot is left that `latest` could point at"),
    }
}

pub(crate) async fn pin(args: DecideArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.one.client)?;
    let pinned: Value = client.post(&path(&args.one, "pin"), &json!({ "reason": args.reason })).await?;
    output.result(&format!("{} is kept until it is unpinned", args.one.id), &pinned);
    Ok(())
}

pub(crate) async fn unpin(args: OneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let unpinned: Value = client.delete(&path(&args, "pin")).await?;
    output.result(&format!("{} is pruned when its time has come", args.id), &unpinned);
    Ok(())
}

fn path(one: &OneArgs, verb: &str) -> String {
    let network = one.network.as_ref().map(|network| format!("?network={network}")).unwrap_or_default();
    format!("/snapshots/{}/{verb}{network}", one.id)
}
