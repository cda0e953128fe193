//! `snapshots run`: the runs of a service, and what an operator does about them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::{signals, watch};
use crate::exit::{Exit, Failure};
use crate::output::{Output, bytes};

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
    /// Do a run that has ended again, or with a filter all that match.
    Retry(RetryArgs),
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

#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["run", "workflow", "since", "until", "text"]))]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Id of the run; or say which runs by the options below.
    #[arg(conflicts_with_all = ["workflow", "state", "since", "until", "text"])]
    run: Option<uuid::Uuid>,
    /// Where it begins: failed-step goes on in the same run, start begins a new one.
    #[arg(long, default_value = "failed-step", value_parser = ["failed-step", "start"])]
    from: String,
    /// All of this workflow's.
    #[arg(long)]
    workflow: Option<String>,
    /// Only in these states, separated by commas; by default those that failed.
    #[arg(long)]
    state: Option<String>,
    /// All asked for at or after this, for example 2026-02-05T00:00:00Z.
    #[arg(long)]
    since: Option<chrono::DateTime<chrono::Utc>>,
    /// All asked for before this.
    #[arg(long)]
    until: Option<chrono::DateTime<chrono::Utc>>,
    /// All with this text in their id, key, error or parameters.
    #[arg(long)]
    text: Option<String>,
}

pub(crate) fn json_object(text: &str) -> Result<Value, String> {
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
        RunCommand::Watch(args) => follow(args, output).await,
        RunCommand::Retry(args) => retry(args, output).await,
        RunCommand::Cancel(args) => cancel(args, output).await,
    }
}

async fn start(args: StartArgs, output: Output) -> anyhow::Result<()> {
    let workflow = word(&args.workflow).map_err(|problem| Failure::new(Exit::Usage, problem))?;
    let client = Client::new(&args.client)?;
    let started = client.start(&format!("/workflows/{workflow}/runs"), &args.params).await?;
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
        if let Some(far) = how_far(step) {
            text.push_str(&format!("  {far}"));
        }
        if let Some(error) = step["error"].as_str() {
            text.push_str(&format!("\n    {error}"));
        }
    }
    output.result(&text, &shown);
    Ok(())
}

/// How far a running step is by its own account, and how fast.
fn how_far(step: &Value) -> Option<String> {
    let progress = step["progress"].as_object().filter(|_| step["state"] == "running")?;
    let count = |name: &str| progress.get(name).and_then(Value::as_u64).unwrap_or(0);
    let unit = progress.get("unit").and_then(Value::as_str).unwrap_or_default();
    let shown = |count: u64| if unit == "bytes" { bytes(count) } else { format!("{count} {unit}") };
    let mut far = shown(count("done"));
    if count("total") > 0 {
        far.push_str(&format!(" of {}", shown(count("total"))));
    }
    if let Some(rate) = progress.get("rate").and_then(Value::as_f64) {
        far.push_str(&format!(", {} a second", shown(rate as u64)));
    }
    Some(far)
}

async fn follow(args: OneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let run = args.run.to_string();
    let ended = signals::interruptible(watch::watch(&client, &run, output), "the run goes on; watch it again any time").await?;
    output.result(&format!("run {run} succeeded"), &json!({ "runId": run, "state": ended["state"], "result": ended["result"] }));
    Ok(())
}

async fn retry(args: RetryArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    if let Some(run) = args.run {
        let retried = client.start(&format!("/runs/{run}/retry"), &json!({ "from": args.from })).await?;
        let text = format!("run {} goes on; follow it with `snapshots run watch`", retried["runId"].as_str().unwrap_or_default());
        output.result(&text, &retried);
        return Ok(());
    }
    let states: Vec<&str> = args.state.iter().flat_map(|states| states.split(',')).collect();
    let mut filter = json!({ "workflow": args.workflow, "since": args.since, "until": args.until, "text": args.text });
    if !states.is_empty() {
        filter["states"] = json!(states);
    }
    let started = client.start("/runs/retry", &json!({ "filter": filter, "from": args.from })).await?;
    let run = started["runId"].as_str().unwrap_or_default();
    output.result(&format!("run {run} retries all that match; follow it with `snapshots run watch {run}`"), &started);
    Ok(())
}

async fn cancel(args: OneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let answer: Value = client.post(&format!("/runs/{}/cancel", args.run), &json!({})).await?;
    output.result(&format!("run {} is asked to end", args.run), &answer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_step_tells_how_far_it_is_and_how_fast() {
        let step = |state: &str, progress: Value| how_far(&json!({ "state": state, "progress": progress }));
        let bytes = json!({ "done": 1_000_000, "total": 4_000_000, "unit": "bytes", "rate": 250_000.4 });
        assert_eq!(step("running", bytes.clone()).as_deref(), Some("1.0 MB of 4.0 MB, 250.0 kB a second"));
        assert_eq!(step("running", json!({ "done": 7, "total": 0, "unit": "rows" })).as_deref(), Some("7 rows"));
        assert_eq!(step("succeeded", bytes), None);
        assert_eq!(step("running", Value::Null), None);
    }
}
