//! `snapshots audit-log`: who did what.

use clap::Args;
use serde_json::Value;

use super::client::{Client, ClientArgs, segment};
use crate::output::Output;

#[derive(Args)]
pub(crate) struct AuditLogArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only about this: a run's id, `workflow NAME`, `queue NAME`, `schedule NAME`.
    #[arg(long)]
    subject: Option<String>,
    /// Only by this person or program.
    #[arg(long)]
    actor: Option<String>,
    /// At most this many, newest first.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

pub(crate) async fn run(args: AuditLogArgs, output: Output) -> anyhow::Result<()> {
    let mut path = format!("/audit-log?limit={}", args.limit);
    for (name, value) in [("subject", &args.subject), ("actor", &args.actor)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let page: Value = Client::new(&args.client)?.get(&path).await?;
    let mut text = format!("{:24} {:28} {:18} {:40} {}", "WHEN", "WHO", "ACT", "SUBJECT", "DETAILS");
    for row in page["data"].as_array().into_iter().flatten() {
        let field = |name: &str| row[name].as_str().unwrap_or_default();
        text.push_str(&format!(
            "\n{:24.24} {:28} {:18} {:40} {}",
            field("at"),
            field("actor"),
            field("act"),
            field("subject"),
            row["details"]
        ));
    }
    output.result(&text, &page["data"]);
    Ok(())
}
