//! `snapshots run`: the runs of a service, and what an operator does about them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::create;
use crate::exit::{Exit, Failure};
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum RunCommand {
    /// Start a run of a workflow.
    Start(StartArgs),
    /// List runs, newest first.
    List(ListArgs),
    /// Show a run with its steps and attempts.
    Show(OneArgs),
    /// Follow a run to its end; the exit code says how it ended.
    Watch(OneArgs),
    /// Ask a run to end.
    Cancel(OneArgs),
}

#[derive(Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Name of the workflow, for example snapshot.
    workflow: String,
    /// Parameters, a JSON object.
    #[arg(long, default_value = "{}", value_parser = json_object)]
    params: Value,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only this workflow's.
    #[arg(long, value_parser = word)]
    workflow: Option<String>,
    /// Only in these states, separated by commas.
    #[arg(long, value_parser = word)]
    state: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

#[derive(Args)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Id of the run.
    run: uuid::Uuid,
}

fn json_object(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() { Ok(value) } else { Err("give a JSON object, for example {\"network\":\"mainnet\"}".into()) }
}

/// What goes into a query as it is.
fn word(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_,".contains(c);
    if text.chars().all(good) { Ok(text.to_owned()) } else { Err("use letters, digits, hyphens and commas".into()) }
}

pub(crate) async fn run(command: RunCommand, output: Output) -> anyhow::Result<()> {
    match command {
        RunCommand::Start(args) => start(args, output).await,
        RunCommand::List(args) => list(args, output).await,
        RunCommand::Show(args) => show(args, output).await,
        RunCommand::Watch(args) => watch(args, output).await,
        RunCommand::Cancel(args) => cancel(args, output).await,
    }
}

async fn start(args: StartArgs, output: Output) -> anyhow::Result<()> {
    let workflow = word(&args.workflow).map_err(|problem| Failure::new(Exit::Usage, problem))?;
    let client = Client::new(&args.client)?;
    let started: Value = client.post(&format!("/workflows/{workflow}/runs"), &args.params).await?;
    output.result(&format!("run {} has started", started["runId"].as_str().unwrap_or_default()), &started);
    Ok(())
}

async fn list(args: ListArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let mut query = format!("/runs?limit={}", args.limit);
    for (name, value) in [("workflow", &args.workflow), ("state", &args.state)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={value}"));
        }
    }
    let page: Value = client.get(&query).await?;
    let mut text = format!("{:36}  {:16} {:10} {:24} {}", "RUN", "WORKFLOW", "STATE", "CREATED", "REASON");
    for run in page["data"].as_array().into_iter().flatten() {
        let field = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
        let (id, workflow, state, created, error) =
            (field("id"), field("workflow"), field("state"), field("createdAt"), field("error"));
        text.push_str(&format!("\n{id:36}  {workflow:16} {state:10} {:24.24} {error}", created));
    }
    output.result(&text, &page["data"]);
    Ok(())
}

async fn show(args: OneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let shown: Value = client.get(&format!("/runs/{}", args.run)).await?;
    let mut text = format!(
        "{} {} {}",
        args.run,
        shown["workflow"].as_str().unwrap_or_default(),
        shown["state"].as_str().unwrap_or_default()
    );
    if let Some(error) = shown["error"].as_str() {
        text.push_str(&format!("\n  {error}"));
    }
    for step in shown["steps"].as_array().into_iter().flatten() {
        let field = |name: &str| step[name].as_str().unwrap_or_default();
        let place = format!("{} {}", field("name"), step["index"]);
        text.push_str(&format!("\n  {place:16} {:10} attempt {} of {}", field("state"), step["attempt"], step["maxAttempts"]));
        if let Some(error) = step["error"].as_str() {
            text.push_str(&format!("\n    {error}"));
        }
    }
    output.result(&text, &shown);
    Ok(())
}

async fn watch(args: OneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let ended = create::follow(&client, &args.run.to_string(), output).await?;
    output.result(&format!("run {} succeeded", args.run), &json!({ "runId": args.run, "state": ended["state"] }));
    Ok(())
}

async fn cancel(args: OneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let answer: Value = client.post(&format!("/runs/{}/cancel", args.run), &json!({})).await?;
    output.result(&format!("run {} is asked to end", args.run), &answer);
    Ok(())
}
