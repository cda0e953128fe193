//! `snapshots verify`: what is published, or what was restored, against a signed manifest.

use anyhow::Context;
use clap::Args;
use serde_json::json;
use snapshot::load::{self, Selection};
use snapshot::manifest::{Manifest, Profile};
use snapshot::verify::{self, Check, Report, Subject};

use super::published::{ProfileArgs, PublishedArgs, TrustArgs, not_loaded};
use super::target::{Follow, TargetArgs};
use super::{show, signals};
use crate::exit::{Exit, Failure};
use crate::output::{Output, bytes};

/// Longest finding that an error repeats.
const FOUND_CHARS: usize = 300;

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Where snapshots are published: an address, s3://BUCKET or a directory, as for `restore`.
    #[arg(long, env = "SNAPSHOTS_FROM", value_name = "URL|s3://BUCKET|DIR", required_unless_present = "database")]
    from: Option<String>,
    /// Snapshot id; by default the newest.
    #[arg(long, value_parser = show::snapshot_id)]
    id: Option<String>,
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Look at the restored database instead (`--to`, or DATABASE_URL). Without --from it is compared with the manifest that the
    /// restore left in it.
    #[arg(long)]
    database: bool,
    #[command(flatten)]
    target: TargetArgs,
    /// Read every byte: digest every published chunk, or every row of the database.
    #[arg(long)]
    deep: bool,
}

impl VerifyArgs {
    fn published(&self) -> Option<PublishedArgs> {
        let (id, profile, trust) = (self.id.clone(), self.profile.clone(), self.trust.clone());
        self.from.clone().map(|from| PublishedArgs::new(from, id, profile, trust))
    }
}

pub(crate) async fn run(args: VerifyArgs, output: Output) -> anyhow::Result<()> {
    signals::interruptible(verify(args, output), "run the same command again").await
}

async fn verify(args: VerifyArgs, output: Output) -> anyhow::Result<()> {
    let (manifest, report) = if args.database { database(&args, output).await? } else { published(&args, output).await? };
    let text = format!(
        "{} up to block {}\n{}{} rows, {} of text were looked at",
        manifest.path(),
        manifest.block_height,
        lines(Some(&report)),
        report.rows,
        bytes(report.raw_bytes)
    );
    let value = json!({ "snapshot": manifest.path().to_string(), "blockHeight": manifest.block_height, "deep": args.deep,
        "proved": report.proved(), "report": report });
    output.result(&text, &value);
    judge(Some(&report))
}

async fn published(args: &VerifyArgs, output: Output) -> anyhow::Result<(Manifest, Report)> {
    let Some(published) = args.published() else {
        let failure = Failure::new(Exit::Usage, "nothing to verify is named");
        return Err(failure.hint("name what is published with --from, or a restored database with --database").into());
    };
    let source = published.source()?;
    let opened = published.open(&source).await?;
    let follow = Follow::new(output);
    let checked = verify::published(&source, &opened, args.deep, (args.target.jobs(), &follow)).await;
    follow.finish();
    let report = checked.map_err(|error| not_loaded(error.into()))?;
    Ok((opened.manifest, report))
}

async fn database(args: &VerifyArgs, output: Output) -> anyhow::Result<(Manifest, Report)> {
    let pool = args.target.connect(output).await?;
    let held = load::held(&pool).await.context("cannot read what the database says it holds")?;
    let (manifest, selection) = match (args.published(), &held) {
        // Whoever restored it had the identity; the bucket is closed to everybody else.
        (_, Some(held)) if held.manifest.profile == Profile::Full => (held.manifest.clone(), held.selection.clone()),
        (Some(published), _) => (published.open(&published.source()?).await?.manifest, Selection::default()),
        (None, Some(held)) => (held.manifest.clone(), held.selection.clone()),
        (None, None) => {
            let failure = Failure::new(Exit::Refused, "the database was not made by `snapshots restore`");
            return Err(failure.hint("name the snapshot that it should be with --from").into());
        }
    };
    if args.deep && !selection.is_all() {
        let failure = Failure::new(Exit::Refused, "the database holds a part of the snapshot, whose digests are of the whole");
        return Err(failure.hint("verify it without --deep").into());
    }
    if args.deep && manifest.profile == Profile::Full {
        let failure =
            Failure::new(Exit::Refused, "rows of the full profile have no order, so their digests say nothing about a table");
        return Err(failure.hint("verify it without --deep: its chunks were digested as they were loaded").into());
    }
    let mut report = verify::whole(&pool, &manifest, held.as_ref()).await?;
    if !report.proved() {
        return Ok((manifest, report));
    }
    report.append(verify::structure(&pool, &manifest, &selection).await?);
    if args.deep {
        report.append(verify::database(&pool, &manifest, Subject::Restored, args.target.jobs()).await?);
    }
    Ok((manifest, report))
}

/// A line for each check.
pub(super) fn lines(report: Option<&Report>) -> String {
    let mut text = String::new();
    for check in report.iter().flat_map(|report| &report.checks) {
        let found = check.found.as_ref().map(|found| format!(" ({found})")).unwrap_or_default();
        text.push_str(&format!("{}  {}{found}\n", if check.holds { "  holds" } else { "  FAILS" }, check.statement));
    }
    text
}

/// Exit code 5 where something does not hold.
pub(super) fn judge(report: Option<&Report>) -> anyhow::Result<()> {
    let Some(report) = report.filter(|report| !report.proved()) else { return Ok(()) };
    let wrong: Vec<String> = report.checks.iter().filter(|check| !check.holds).map(in_short).collect();
    let failure = Failure::new(Exit::Diverged, format!("not so: {}", wrong.join("; ")));
    Err(failure.hint("all that was found instead is in the result above").into())
}

/// What should be, and what is: the list of all chunks that differ may be long.
fn in_short(check: &Check) -> String {
    let Some(found) = &check.found else { return check.statement.clone() };
    let (short, rest) = found.char_indices().nth(FOUND_CHARS).map_or((found.as_str(), ""), |(at, _)| found.split_at(at));
    format!("{} ({short}{})", check.statement, if rest.is_empty() { "" } else { "…" })
}
