//! `snapshots diff`: what differs between two snapshots.

use clap::Args;
use serde_json::Value;

use super::client::{Client, ClientArgs};
use super::show::snapshot_id;
use crate::output::{Output, bytes};

#[derive(Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Id of the snapshot to start from.
    #[arg(value_parser = snapshot_id)]
    from: String,
    /// Id of the snapshot to arrive at.
    #[arg(value_parser = snapshot_id)]
    to: String,
    /// Network, where the service has several.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
}

pub(crate) async fn run(args: DiffArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let network = args.network.map(|network| format!("&network={network}")).unwrap_or_default();
    let diff: Value = client.get(&format!("/snapshots/{}/diff?from={}{network}", args.to, args.from)).await?;
    output.result(&text(&diff), &diff);
    Ok(())
}

fn text(diff: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let side = |side: &Value| format!("{} at height {}", side["id"].as_str().unwrap_or_default(), side["blockHeight"]);
    let mut lines = vec![
        format!("{} → {}", side(&diff["from"]), side(&diff["to"])),
        format!(
            "{} chunks added ({}), {} removed, {} the same{}",
            diff["chunksAdded"],
            bytes(number(&diff["bytesAdded"])),
            diff["chunksRemoved"],
            diff["chunksSame"],
            if diff["schemaChanged"] == true { "; the schema section differs" } else { "" }
        ),
    ];
    for table in diff["tables"].as_array().into_iter().flatten().filter(|table| table["chunksAdded"] != 0) {
        let name = table["table"].as_str().unwrap_or_default();
        let rows = number(&table["rowsTo"]).cast_signed() - number(&table["rowsFrom"]).cast_signed();
        lines.push(format!(
            "  {name:24} {rows:+} rows, {} chunks, {}",
            table["chunksAdded"],
            bytes(number(&table["bytesAdded"]))
        ));
    }
    for heights in diff["heights"].as_array().into_iter().flatten() {
        lines.push(format!("  heights {}..={}", heights["from"], heights["to"]));
    }
    lines.join("\n")
}
