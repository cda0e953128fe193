//! `snapshots show`.

use clap::Args;
use snapshot::drill::{Record, Way};
use snapshot::manifest::{Archive, Manifest};

use super::client::{Client, ClientArgs};
use crate::output::{Output, bytes};

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Snapshot id, or `latest`.
    #[arg(default_value = "latest", value_parser = snapshot_id)]
    id: String,
    /// Network, where the service has several.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
}

/// `2026-02-05`, `2026-02-05.2` or `latest`: anything else could change the path of the request.
pub(crate) fn snapshot_id(id: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if id.is_empty() || !id.chars().all(good) || id.contains("..") {
        return Err("an id looks like 2026-02-05 or 2026-02-05.2; `snapshots list` shows them".into());
    }
    Ok(id.to_owned())
}

/// Fetches the manifest of a snapshot.
pub(crate) async fn manifest(client: &Client, id: &str, network: Option<&str>) -> anyhow::Result<Manifest> {
    let query = network.map(|network| format!("?network={network}")).unwrap_or_default();
    client.get(&format!("/snapshots/{id}{query}")).await
}

pub(crate) async fn run(args: ShowArgs, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let manifest = manifest(&client, &args.id, args.network.as_deref()).await?;
    output.result(&text(&manifest), &manifest);
    Ok(())
}

fn on_request(archive: Archive) -> &'static str {
    match archive {
        Archive::Stored => "",
        Archive::OnRequest => ", made as it is read",
    }
}

fn text(manifest: &Manifest) -> String {
    let mut lines = vec![
        format!("{} {}", manifest.network, manifest.snapshot_id),
        format!("  height    {} ({})", manifest.block_height, manifest.block_hash),
        format!("  created   {}", manifest.created_at),
        format!("  archive   {} ({}{})", manifest.url, bytes(manifest.size_bytes), on_request(manifest.archive)),
        format!("  checksum  {}", manifest.checksum),
        format!("  chunks    {}", manifest.chunks.len()),
    ];
    lines.extend(drill(manifest));
    for (table, totals) in &manifest.tables {
        lines.push(format!("  {table:22} {:>12} rows {:>10}", totals.rows, bytes(totals.bytes)));
    }
    lines.join("\n")
}

/// What the service adds to a manifest: the outcome of the last restore drill.
fn drill(manifest: &Manifest) -> Option<String> {
    let record: Record = serde_json::from_value(manifest.unknown.get("drill")?.clone()).ok()?;
    if let Some(problem) = &record.problem {
        return Some(format!("  drill     DISPROVED {}: {problem}", record.ended_at));
    }
    let seconds = |way, name: &str| record.rto_seconds(way).map(|seconds| format!(", {seconds} s by {name}")).unwrap_or_default();
    let (stock, own) = (seconds(Way::Stock, "stock tools"), seconds(Way::Own, "snapshots restore"));
    Some(format!("  drill     proved {} ({}{stock}{own})", record.ended_at, record.mode.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_place_in_the_url() {
        assert!(snapshot_id("2026-02-05.2").is_ok());
        for bad in ["", "../runs", "a/b", "a?b", "a b", "a..b"] {
            assert!(snapshot_id(bad).is_err(), "{bad}");
        }
    }
}
