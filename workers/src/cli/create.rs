//! `snapshots create`: starts a run, and with `--wait` follows it to its end.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use crate::exit::{Exit, Failure};
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
    let started: Value = client.post("/workflows/snapshot/runs", &params).await?;
    let run = started["runId"].as_str().unwrap_or_default().to_owned();
    if !args.wait {
        output.result(&format!("run {run} has started; `snapshots list` shows the snapshot once it is published"), &started);
        return Ok(());
    }
    let ended = follow(&client, &run, output).await?;
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

/// Waits for the end of a run and returns it.
pub(crate) async fn follow(client: &Client, run: &str, output: Output) -> anyhow::Result<Value> {
    let mut progress = output.progress("waiting for a worker", 0);
    let begun = Instant::now();
    loop {
        let shown: Value = client.get(&format!("/runs/{run}")).await?;
        let seen = Seen::of(&shown);
        progress.phase(&seen.step, seen.total);
        progress.set(seen.done);
        match shown["state"].as_str() {
            Some("succeeded") => {
                progress.finish();
                return Ok(shown);
            }
            Some(state @ ("failed" | "cancelled")) => {
                progress.finish();
                let why = shown["error"].as_str().unwrap_or("no reason was recorded").to_owned();
                let failure = Failure::new(Exit::Failed, format!("the run {state}: {why}"));
                return Err(failure.hint("nothing was published and `latest` is as it was").into());
            }
            // Short runs are answered at once, long ones asked about now and then.
            _ => tokio::time::sleep((begun.elapsed() / 64).clamp(Duration::from_millis(40), Duration::from_secs(1))).await,
        }
    }
}

/// Where a run is: the lowest unfinished step, and how many of its like are done.
pub(crate) struct Seen {
    pub(crate) step: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

impl Seen {
    pub(crate) fn of(shown: &Value) -> Self {
        let empty = Vec::new();
        let steps = shown["steps"].as_array().unwrap_or(&empty);
        let open = |step: &&Value| !matches!(step["state"].as_str(), Some("succeeded" | "blocked"));
        let Some(current) = steps.iter().find(open) else {
            return Self { step: "finishing".into(), done: 0, total: 0 };
        };
        let name = current["name"].as_str().unwrap_or_default();
        let alike: Vec<&Value> = steps.iter().filter(|step| step["name"] == name && step["kind"] != "group").collect();
        let succeeded = alike.iter().filter(|step| step["state"] == "succeeded").count() as u64;
        if alike.len() > 1 {
            return Self { step: name.into(), done: succeeded, total: alike.len() as u64 };
        }
        let progress = &current["progress"];
        Self { step: name.into(), done: progress["done"].as_u64().unwrap_or(0), total: progress["total"].as_u64().unwrap_or(0) }
    }
}
