//! `snapshots workflow` and `snapshots queue`: what there is, and stopping it for a while.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ClientArgs, segment};
use crate::output::Output;

/// What can be paused.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Workflow,
    Queue,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Workflow => "/workflows",
            Self::Queue => "/queues",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Queue => "queue",
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum PauseCommand {
    /// List all, and which are paused.
    List(ListArgs),
    /// Begin no more steps of it; those that run go on.
    Pause(PauseArgs),
    /// Let it go on.
    Resume(ResumeArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Its name.
    name: String,
    /// Why; everybody who finds it paused reads it.
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Its name.
    name: String,
}

pub(crate) async fn run(kind: Kind, command: PauseCommand, output: Output) -> anyhow::Result<()> {
    match command {
        PauseCommand::List(args) => {
            let page: Value = Client::new(&args.client)?.get(kind.path()).await?;
            output.result(&text(&page), &page["data"]);
        }
        PauseCommand::Pause(args) => {
            let path = format!("{}/{}/pause", kind.path(), segment(&args.name));
            let paused: Value = Client::new(&args.client)?.post(&path, &json!({ "reason": args.reason })).await?;
            output.result(&format!("{} {} is paused; what runs goes on", kind.word(), args.name), &paused);
        }
        PauseCommand::Resume(args) => {
            let path = format!("{}/{}/resume", kind.path(), segment(&args.name));
            let resumed: Value = Client::new(&args.client)?.post(&path, &json!({})).await?;
            output.result(&format!("{} {} goes on", kind.word(), args.name), &resumed);
        }
    }
    Ok(())
}

fn text(page: &Value) -> String {
    let mut text = format!("{:20} {:8} {}", "NAME", "STATE", "REASON");
    for row in page["data"].as_array().into_iter().flatten() {
        let (name, pause) = (row["name"].as_str().unwrap_or_default(), &row["pause"]);
        let field = |name: &str| pause[name].as_str().unwrap_or_default();
        if pause.is_null() {
            text.push_str(&format!("\n{name:20} {:8}", "running"));
        } else {
            text.push_str(&format!("\n{name:20} {:8} {} ({}, {})", "paused", field("reason"), field("actor"), field("at")));
        }
    }
    text
}
