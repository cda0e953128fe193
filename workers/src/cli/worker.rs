//! `snapshots worker list`: the processes of a service.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, ClientArgs};
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the processes of a service and what each runs.
    List(ListArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(command: WorkerCommand, output: Output) -> anyhow::Result<()> {
    let WorkerCommand::List(args) = command;
    let page: Value = Client::new(&args.client)?.get("/workers").await?;
    let mut text = format!("{:9} {:16} {:>8} {:8} {:24} {:28} {}", "STATE", "HOST", "PID", "VERSION", "SEEN", "ROLES", "RUNS");
    for row in page["data"].as_array().into_iter().flatten() {
        let field = |name: &str| row[name].as_str().unwrap_or_default();
        let roles: Vec<&str> = row["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let step = |step: &Value| Some(format!("{}/{} {}", step["workflow"].as_str()?, step["step"].as_str()?, step["index"]));
        let running: Vec<String> = row["running"].as_array().into_iter().flatten().filter_map(step).collect();
        text.push_str(&format!(
            "\n{:9} {:16} {:>8} {:8} {:24.24} {:28} {}",
            field("state"),
            field("host"),
            row["pid"],
            field("version"),
            field("seenAt"),
            roles.join(","),
            running.join(", ")
        ));
    }
    output.result(&text, &page["data"]);
    Ok(())
}
