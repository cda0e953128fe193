//! `snapshots list`.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ClientArgs};
use crate::output::{Output, bytes};

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only this network.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
}

pub(crate) async fn run(args: ListArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let network = args.network.as_ref().map(|network| format!("&network={network}")).unwrap_or_default();
        let after = cursor.map(|cursor: String| format!("&cursor={cursor}")).unwrap_or_default();
        let page: Value = client.get(&format!("/snapshots?limit=1000{network}{after}")).await?;
        rows.extend(page["data"].as_array().cloned().unwrap_or_default());
        cursor = page["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if rows.is_empty() {
        output.result("no snapshot has been published yet; cut one with `snapshots create --wait`", &json!([]));
        return Ok(());
    }
    let line = |row: &Value| {
        format!(
            "{:12} {:16} {:>10} {:>10}  {}",
            row["network"].as_str().unwrap_or_default(),
            row["id"].as_str().unwrap_or_default(),
            // A JSON value does not pad itself.
            row["blockHeight"].as_u64().unwrap_or_default(),
            bytes(row["sizeBytes"].as_u64().unwrap_or_default()),
            row["publishedAt"].as_str().unwrap_or_default()
        )
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    let header = format!("{:12} {:16} {:>10} {:>10}  {}", "NETWORK", "ID", "HEIGHT", "SIZE", "PUBLISHED");
    output.result(&format!("{header}\n{}", lines.join("\n")), &rows);
    Ok(())
}
