//! `snapshots restore`: a published snapshot into an empty database, resumed where it stopped, and proved.

use clap::Args;
use serde_json::json;
use snapshot::chunk::Heights;
use snapshot::fetch::{Opened, Source};
use snapshot::load::{self, Options, Outcome, Part, Selection, State};
use snapshot::manifest::Manifest;
use sqlx::PgPool;

use super::published::{PublishedArgs, not_loaded};
use super::signals;
use super::target::{Follow, TargetArgs};
use crate::output::{Output, bytes};

#[derive(Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    published: PublishedArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Only the blocks FROM..=TO, with their transactions and events.
    #[arg(long, value_name = "FROM..TO", value_parser = heights)]
    heights: Option<Heights>,
    /// Only rows of these tables; the others are made, and stay empty.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    tables: Option<Vec<String>>,
    /// One transaction per table, rows frozen at once: quicker, and with `wal_level = minimal` next to no WAL; but a table that is
    /// interrupted begins anew.
    #[arg(long)]
    fast: bool,
    /// Only check and tell what would be done, what it takes, and what speaks against it.
    #[arg(long)]
    dry_run: bool,
    /// Whether every object is fetched and digested before the first row, beside each one before its own rows: `auto` does where that is
    /// cheap, from a directory or for no more than 256 MiB.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", default_missing_value = "always", num_args = 0..=1, require_equals = true)]
    check_first: CheckFirst,
    /// In the end read all rows again and compare their digests with the snapshot's.
    #[arg(long, conflicts_with_all = ["heights", "tables", "skip_verify"])]
    deep: bool,
    /// Leave out the vacuum at the end; the indexer's queries are slow until you run `vacuum analyze`.
    #[arg(long)]
    skip_vacuum: bool,
    /// Leave out the check at the end; `snapshots verify` does it later.
    #[arg(long)]
    skip_verify: bool,
    /// Free disk of the database server in bytes, where this machine cannot see it.
    #[arg(long, value_name = "BYTES")]
    free_disk: Option<u64>,
}

/// When every object is read before the first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CheckFirst {
    Auto,
    Always,
    Never,
}

impl CheckFirst {
    fn applies(self, source: &Source, parts: &[Part]) -> bool {
        let download = || parts.iter().map(|part| part.chunk.bytes).sum::<u64>();
        match self {
            Self::Auto => source.is_directory() || download() <= CHECK_FIRST_BYTES,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// So much is fetched twice without being asked, to refuse a damaged snapshot before anything is written.
const CHECK_FIRST_BYTES: u64 = 256 << 20;

/// `100..200`, both ends included.
fn heights(text: &str) -> Result<Heights, String> {
    let ends = text.split_once("..").map(|(from, to)| (from.parse(), to.trim_start_matches('=').parse()));
    match ends {
        Some((Ok(from), Ok(to))) if from <= to => Ok(Heights { from, to }),
        _ => Err("heights look like 100000..200000".into()),
    }
}

pub(crate) async fn run(args: RestoreArgs, output: Output) -> anyhow::Result<()> {
    signals::interruptible(restore(args, output), "run the same command again to go on").await
}

async fn restore(args: RestoreArgs, output: Output) -> anyhow::Result<()> {
    let source = args.published.source()?;
    let pool = args.target.connect(output).await?;
    let opened = open(&args, &source, &pool, output).await?;
    let options = options(&args, &source, &opened.manifest)?;
    if args.dry_run {
        return dry_run(&pool, (&source, &opened), &options, output).await;
    }
    let manifest = &opened.manifest;
    output.say(&format!("{} up to block {}, signed by key {}", manifest.path(), manifest.block_height, opened.signed_by));
    let follow = Follow::new(output);
    let restored = load::restore(&pool, &source, &opened, &options, &follow).await;
    follow.finish();
    let outcome = restored.map_err(not_loaded)?;
    tell(&opened, &options, &outcome, &source, output)
}

/// An unfinished restore is ended before anything newer is begun: `latest` may have moved since.
async fn open(args: &RestoreArgs, source: &Source, pool: &PgPool, output: Output) -> anyhow::Result<Opened> {
    let held = load::held(pool).await?.filter(|held| held.state == State::Loading);
    match held {
        Some(held) if args.published.id().is_none() => {
            let id = held.manifest.snapshot_id;
            output.say(&format!("going on with the unfinished restore of {id}"));
            args.published.open_id(source, Some(id)).await
        }
        _ => args.published.open(source).await,
    }
}

fn options(args: &RestoreArgs, source: &Source, manifest: &Manifest) -> anyhow::Result<Options> {
    let selection = Selection { heights: args.heights, tables: args.tables.clone() };
    let parts = selection.parts(manifest).map_err(not_loaded)?;
    Ok(Options {
        selection,
        fast: args.fast,
        // A plan asks for objects and fetches none, unless it is told to.
        check_first: args.check_first.applies(source, &parts) && (!args.dry_run || args.check_first == CheckFirst::Always),
        vacuum: !args.skip_vacuum,
        verify: !args.skip_verify,
        deep: args.deep,
        free_disk: args.free_disk,
        ..args.target.options()
    })
}

async fn dry_run(pool: &PgPool, (source, opened): (&Source, &Opened), options: &Options, output: Output) -> anyhow::Result<()> {
    let mut assessment = load::assess(pool, opened, options).await.map_err(not_loaded)?;
    let parts = options.selection.parts(&opened.manifest).map_err(not_loaded)?;
    let follow = Follow::new(output);
    let objects = load::look_ahead(pool, source, opened, options, &follow).await;
    follow.finish();
    let objects = objects.map(|refusals| assessment.refusals.extend(refusals)).map_err(not_loaded);
    let problem = objects.as_ref().err().map(|error| format!("{error:#}"));
    let (download, raw): (u64, u64) =
        parts.iter().fold((0, 0), |(download, raw), part| (download + part.chunk.bytes, raw + part.chunk.raw_bytes));
    let manifest = &opened.manifest;
    let value = json!({ "snapshot": manifest.path().to_string(), "blockHeight": manifest.block_height, "chunks": parts.len(),
        "downloadBytes": download, "rawBytes": raw, "rows": parts.iter().map(|part| part.chunk.rows).sum::<u64>(),
        "diskBytes": assessment.needs.total(), "fast": options.fast, "jobs": options.jobs, "objectsProblem": problem,
        "target": assessment });
    let free = assessment.free_bytes.map_or("unknown".into(), bytes);
    let text = format!(
        "{} up to block {}: {} chunks, {} to fetch, about {} of disk on the server (free: {free})\nobjects: {}",
        manifest.path(),
        manifest.block_height,
        parts.len(),
        bytes(download),
        bytes(assessment.needs.total()),
        problem.as_deref().unwrap_or("all there"),
    );
    output.result(&text, &value);
    if assessment.refusals.is_empty() { objects } else { Err(not_loaded(load::LoadError::Refused(assessment.refusals))) }
}

fn tell(opened: &Opened, options: &Options, outcome: &Outcome, source: &Source, output: Output) -> anyhow::Result<()> {
    let manifest = &opened.manifest;
    let height = options.selection.height(manifest);
    let mut text = format!(
        "restored {} up to block {height}: {} rows loaded{}, {} fetched ({} requests sent again)\n",
        manifest.path(),
        outcome.rows,
        if outcome.chunks_before > 0 { format!(", {} chunks were there", outcome.chunks_before) } else { String::new() },
        bytes(source.fetched_bytes()),
        source.retries(),
    );
    for step in &outcome.steps {
        text.push_str(&format!("{:>9.1} s  {}\n", step.seconds, step.name));
    }
    text.push_str(&super::verify::lines(outcome.report.as_ref()));
    if let Some(settled) = &outcome.settled {
        text.push_str(&format!(
            "  settled  {} sequences; {} jobs wait again, {} were for blocks above; views lowered: {}\n",
            settled.sequences,
            settled.jobs_returned,
            settled.jobs_removed,
            if settled.views_lowered.is_empty() { "none".into() } else { settled.views_lowered.join(", ") },
        ));
    }
    text.push_str(&format!("     next  start the indexer: it goes on at block {}", height + 1));
    let proved = outcome.report.as_ref().map(snapshot::verify::Report::proved);
    let value = json!({ "snapshot": manifest.path().to_string(), "blockHeight": height, "proved": proved, "outcome": outcome,
        "fetchedBytes": source.fetched_bytes(), "retries": source.retries() });
    output.result(&text, &value);
    super::verify::judge(outcome.report.as_ref())
}
