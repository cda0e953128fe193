//! `snapshots worker`: the processes of a service, and whether each takes more work.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ClientArgs, segment};
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the processes of a service and what each runs.
    List(ListArgs),
    /// Let a process take no more work; what it runs is given back where that can be done, else finished.
    Drain(OneArgs),
    /// Let a process that was told to drain take work again.
    Resume(OneArgs),
}

#[derive(Args)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Id of the process, as `worker list` shows it.
    id: String,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(command: WorkerCommand, output: Output) -> anyhow::Result<()> {
    match command {
        WorkerCommand::List(args) => list(args, output).await,
        WorkerCommand::Drain(args) => {
            let text = format!("{} takes no more work; `snapshots worker list` shows what it still runs", args.id);
            tell(args, "drain", &text, output).await
        }
        WorkerCommand::Resume(args) => {
            let text = format!("{} takes work again", args.id);
            tell(args, "resume", &text, output).await
        }
    }
}

async fn tell(args: OneArgs, verb: &str, text: &str, output: Output) -> anyhow::Result<()> {
    let path = format!("/workers/{}/{verb}", segment(&args.id));
    let told: Value = Client::new(&args.client)?.post(&path, &json!({})).await?;
    output.result(text, &told);
    Ok(())
}

async fn list(args: ListArgs, output: Output) -> anyhow::Result<()> {
    let page: Value = Client::new(&args.client)?.get("/workers").await?;
    let mut text = format!("{:9} {:56} {:8} {:24} {:28} {}", "STATE", "ID", "VERSION", "SEEN", "ROLES", "RUNS");
    for row in page["data"].as_array().into_iter().flatten() {
        let field = |name: &str| row[name].as_str().unwrap_or_default();
        let roles: Vec<&str> = row["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let step = |step: &Value| Some(format!("{}/{} {}", step["workflow"].as_str()?, step["step"].as_str()?, step["index"]));
        let running: Vec<String> = row["running"].as_array().into_iter().flatten().filter_map(step).collect();
        text.push_str(&format!(
            "\n{:9} {:56} {:8} {:24.24} {:28} {}",
            field("state"),
            field("id"),
            field("version"),
            field("seenAt"),
            roles.join(","),
            running.join(", ")
        ));
    }
    output.result(&text, &page["data"]);
    Ok(())
}
