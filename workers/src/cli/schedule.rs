//! `snapshots schedule`: what runs by itself.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Client, ClientArgs, segment};
use super::run::json_object;
use crate::exit::{Exit, Failure};
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum ScheduleCommand {
    /// List all schedules.
    List(ListArgs),
    /// Show a schedule and when it fires next.
    Show(OneArgs),
    /// Stop a schedule from firing; what it misses is not caught up.
    Pause(PauseArgs),
    /// Let a schedule fire again, beginning with its next tick.
    Resume(OneArgs),
    /// Start a run of a schedule now, paused or not.
    Run(OneArgs),
    /// Change a schedule.
    Set(SetArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Name of the schedule.
    name: String,
}

#[derive(Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Name of the schedule.
    name: String,
    /// Why; everybody who looks at the schedule reads it.
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Name of the schedule.
    name: String,
    /// When it fires: five fields, as in crontab.
    #[arg(long)]
    cron: Option<String>,
    /// Time zone, for example Europe/Zurich.
    #[arg(long)]
    timezone: Option<String>,
    /// What a tick does while an earlier run is unfinished: skip, queue or cancel_old.
    #[arg(long)]
    overlap: Option<String>,
    /// What becomes of ticks that no scheduler was there for: none, last or all.
    #[arg(long)]
    catchup: Option<String>,
    /// Parameters of its runs, a JSON object.
    #[arg(long, value_parser = json_object)]
    params: Option<Value>,
    /// Priority of its runs, 0 to 1000; greater goes first.
    #[arg(long)]
    priority: Option<i32>,
}

pub(crate) async fn run(command: ScheduleCommand, output: Output) -> anyhow::Result<()> {
    match command {
        ScheduleCommand::List(args) => list(&Client::new(&args.client)?, output).await,
        ScheduleCommand::Show(args) => {
            let shown: Value = Client::new(&args.client)?.get(&path(&args.name)).await?;
            output.result(&text(&shown), &shown);
            Ok(())
        }
        ScheduleCommand::Pause(args) => {
            let body = json!({ "paused": true, "reason": args.reason });
            change(&Client::new(&args.client)?, &args.name, &body, output).await
        }
        ScheduleCommand::Resume(args) => {
            change(&Client::new(&args.client)?, &args.name, &json!({ "paused": false }), output).await
        }
        ScheduleCommand::Run(args) => {
            let client = Client::new(&args.client)?;
            let started = client.start(&format!("{}/run", path(&args.name)), &json!({})).await?;
            output.result(&format!("run {} has started", started["runId"].as_str().unwrap_or_default()), &started);
            Ok(())
        }
        ScheduleCommand::Set(args) => {
            let body = wanted(&args)?;
            change(&Client::new(&args.client)?, &args.name, &body, output).await
        }
    }
}

fn path(name: &str) -> String {
    format!("/schedules/{}", segment(name))
}

fn wanted(args: &SetArgs) -> Result<Value, Failure> {
    let mut body = Map::new();
    let texts = [("cron", &args.cron), ("timezone", &args.timezone), ("overlap", &args.overlap), ("catchup", &args.catchup)];
    for (name, value) in texts {
        if let Some(value) = value {
            body.insert(name.into(), json!(value));
        }
    }
    if let Some(params) = &args.params {
        body.insert("params".into(), params.clone());
    }
    if let Some(priority) = args.priority {
        body.insert("priority".into(), json!(priority));
    }
    if body.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing to change").hint("give at least one of the options; see --help"));
    }
    Ok(Value::Object(body))
}

async fn change(client: &Client, name: &str, body: &Value, output: Output) -> anyhow::Result<()> {
    let changed: Value = client.patch(&path(name), body).await?;
    output.result(&text(&changed), &changed);
    Ok(())
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let page: Value = client.get("/schedules").await?;
    let mut text =
        format!("{:20} {:16} {:16} {:14} {:20} {:10} {}", "NAME", "WORKFLOW", "CRON", "TIME ZONE", "NEXT", "LAST", "DETAIL");
    for row in page["data"].as_array().into_iter().flatten() {
        let field = |name: &str| row[name].as_str().unwrap_or_default();
        let next = row["nextFires"][0].as_str().unwrap_or("paused");
        let detail = if row["pausedAt"].is_null() { field("lastDetail") } else { field("pauseReason") };
        text.push_str(&format!(
            "\n{:20} {:16} {:16} {:14} {next:20} {:10} {detail}",
            field("name"),
            field("workflow"),
            field("cron"),
            field("timezone"),
            field("lastOutcome")
        ));
    }
    output.result(&text, &page["data"]);
    Ok(())
}

fn text(row: &Value) -> String {
    let field = |name: &str| row[name].as_str().unwrap_or("-");
    let mut lines = vec![
        format!("{} starts {}", field("name"), field("workflow")),
        format!("  when      {} ({})", field("cron"), field("timezone")),
        format!("  params    {}, priority {}", row["params"], row["priority"]),
        format!("  overlap   {}, catch-up {}", field("overlap"), field("catchup")),
        format!("  last      {} {} {}", field("lastTickAt"), field("lastOutcome"), field("lastDetail")),
        format!("  last run  {}", field("lastRunId")),
    ];
    if !row["pausedAt"].is_null() {
        lines.push(format!("  paused    {} by {}: {}", field("pausedAt"), field("pausedBy"), field("pauseReason")));
    }
    for next in row["nextFires"].as_array().into_iter().flatten() {
        lines.push(format!("  next      {}", next.as_str().unwrap_or_default()));
    }
    lines.join("\n")
}
