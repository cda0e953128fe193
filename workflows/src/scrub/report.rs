//! Step `report`: one line about the whole run.

use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Chosen;
use super::rehash::{Finding, Looked};
use crate::services::Services;

/// What the run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    snapshot: Option<String>,
    sealed_ranges: usize,
    ranges: usize,
    chunks: u64,
    raw_bytes: u64,
    findings: Vec<Finding>,
}

pub(super) async fn run(ctx: Ctx<Services>, looked: Vec<Looked>) -> Result<Report, StepError> {
    let chosen: Chosen = ctx.output("choose").await?;
    let report = Report {
        snapshot: chosen.snapshot.map(|snapshot| snapshot.id),
        sealed_ranges: chosen.sealed,
        ranges: chosen.ranges.len(),
        chunks: looked.iter().map(|child| child.chunks).sum(),
        raw_bytes: looked.iter().map(|child| child.raw_bytes).sum(),
        findings: looked.into_iter().flat_map(|child| child.findings).collect(),
    };
    let level = if report.findings.is_empty() { Level::Info } else { Level::Error };
    let data = json!({ "ranges": report.ranges, "chunks": report.chunks, "findings": report.findings.len() });
    ctx.event(level, "scrub.done", data).await?;
    Ok(report)
}
