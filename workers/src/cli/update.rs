//! `snapshots update`: a restored database to the newest snapshot, by the chunks it lacks.

use clap::Args;
use serde_json::json;
use snapshot::load::{self, Options};

use super::published::{PublishedArgs, not_loaded};
use super::signals;
use super::target::{Follow, TargetArgs};
use crate::output::{Output, bytes};

#[derive(Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    published: PublishedArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Only tell what would be fetched and replaced.
    #[arg(long)]
    dry_run: bool,
    /// In the end read all rows again and compare their digests with the snapshot's.
    #[arg(long)]
    deep: bool,
}

pub(crate) async fn run(args: UpdateArgs, output: Output) -> anyhow::Result<()> {
    signals::interruptible(update(args, output), "run the same command again to go on").await
}

async fn update(args: UpdateArgs, output: Output) -> anyhow::Result<()> {
    let source = args.published.source()?;
    let pool = args.target.connect(output).await?;
    let opened = args.published.open(&source).await?;
    let follow = Follow::new(output);
    let options = Options { deep: args.deep, ..args.target.options() };
    let updated = load::update(&pool, &source, &opened, &options, (&follow, args.dry_run)).await;
    follow.finish();
    let (difference, outcome) = updated.map_err(not_loaded)?;
    let text = format!(
        "{} → {}: {} chunks ({}) replace {} ranges of blocks{}\n{}",
        difference.from,
        difference.to,
        difference.chunks,
        bytes(difference.bytes),
        difference.ranges.len(),
        if args.dry_run { "; nothing was changed" } else { "" },
        super::verify::lines(outcome.as_ref().and_then(|outcome| outcome.report.as_ref())),
    );
    let height = opened.manifest.block_height;
    let report = outcome.as_ref().and_then(|outcome| outcome.report.clone());
    output.result(text.trim_end(), &json!({ "difference": difference, "blockHeight": height, "outcome": outcome }));
    if args.dry_run { Ok(()) } else { super::verify::judge(report.as_ref()) }
}
