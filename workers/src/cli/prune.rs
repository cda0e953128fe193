//! `snapshots prune`: removes what is too old and what nobody names any more, or says what would go.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use super::watch::follow;
use crate::output::{Output, bytes};

#[derive(Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Network; by default the service's own.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
}

pub(crate) async fn run(args: PruneArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let params = json!({ "network": args.network, "dryRun": args.dry_run });
    let started = client.start("/workflows/prune/runs", &params).await?;
    let ended = follow(&client, started["runId"].as_str().unwrap_or_default(), output).await?;
    let report = &ended["result"];
    output.result(&text(report, args.dry_run), report);
    Ok(())
}

fn text(report: &Value, dry_run: bool) -> String {
    let list = |name: &str| {
        let ids = report[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        if ids.is_empty() { "none".to_owned() } else { ids }
    };
    let (expired, removed) = if dry_run { ("would expire", "would be removed") } else { ("expired", "removed") };
    let mut lines = vec![
        format!("kept: {}", list("kept")),
        format!("{expired}: {}", list("expired")),
        format!("{removed}: {}", list("removed")),
        format!(
            "chunks that nothing names: {}, of which {} {removed}; {} in all",
            report["unreferenced"],
            report["chunks"],
            bytes(report["bytes"].as_u64().unwrap_or_default())
        ),
    ];
    if let Some(why) = report["skipped"].as_str() {
        lines.push(format!("chunks were left alone: {why}"));
    }
    lines.join("\n")
}
