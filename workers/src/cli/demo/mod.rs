//! `snapshots demo`: everything the product promises, on a synthetic chain, with nothing set up.
//!
//! What a user would type is done with the user's own tools: curl, sha256sum, tar, pg_restore.

mod restore;
mod stock;

use std::time::Instant;

use anyhow::Context;
use chain::synthetic::{self, Profile, Spec};
use clap::Args;
use engine::RunState;
use serde::Serialize;
use serde_json::{Value, json};
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer};
use snapshot::verify::Check;

use super::signals::Signals;
use super::watch::Seen;
use crate::config::{Servers, ServiceArgs};
use crate::exit::{Exit, Failure};
use crate::output::{Output, bytes};
use crate::service::{Keep, Service};

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Blocks of the synthetic chain; a database that holds blocks already is taken as it is.
    #[arg(long, default_value_t = 3_000)]
    blocks: u64,
    /// Stop after the comparison instead of serving; the exit code says whether all of it held.
    #[arg(long)]
    once: bool,
    /// Keep nothing: all data is gone when the command ends.
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

/// A thing done, for the table at the end.
#[derive(Serialize)]
struct Deed {
    what: String,
    seconds: f64,
    bytes: Option<u64>,
}

pub(crate) async fn run(mut args: DemoArgs, output: Output) -> anyhow::Result<()> {
    // A demo cuts its own snapshot. On a directory of yesterday the missed nightly tick would fire first, and that run would be
    // in the way.
    args.service.schedules.no_schedules = true;
    let servers = Servers::from_env()?;
    stock::check()?;
    long_enough(&args)?;
    let mut signals = Signals::listen()?;
    let keep = if args.ephemeral { Keep::Nothing } else { Keep::Lasting };
    output.say("starting PostgreSQL, the bucket and the service …");
    let Some(mut service) = super::serve::start(&args.service, &servers, keep, &mut signals).await? else {
        return Err(interrupted());
    };
    let shown = tokio::select! {
        shown = show(&args, &service, output) => shown,
        () = signals.next() => Err(interrupted()),
    };
    let mut ended = Ok(());
    if !args.once && shown.as_ref().is_ok_and(|checks| proved(checks)) {
        output.say("serving; Ctrl-C stops everything");
        ended = tokio::select! {
            () = signals.next() => Ok(()),
            broken = service.broken() => Err(broken),
        };
    }
    service.stop(signals.next()).await;
    let checks = shown?;
    ended?;
    if !proved(&checks) {
        return Err(Failure::new(Exit::Diverged, "the restored database is not the one that was snapshotted").into());
    }
    Ok(())
}

fn interrupted() -> anyhow::Error {
    Failure::new(Exit::Interrupted, "interrupted").into()
}

fn proved(checks: &[Check]) -> bool {
    !checks.is_empty() && checks.iter().all(|check| check.holds)
}

/// A chain whose first block is not final yet has nothing to snapshot; better said before it is loaded.
fn long_enough(args: &DemoArgs) -> Result<(), Failure> {
    if args.blocks > 5_000 {
        return Ok(());
    }
    let spec = spec(args);
    let ends = if args.blocks == 0 { None } else { synthetic::blocks(&spec).next().zip(synthetic::blocks(&spec).last()) };
    let depth = ends.map_or(0, |(first, last)| last.burn_block_height - first.burn_block_height);
    if depth >= u64::from(args.service.source.confirmations) && args.blocks > 0 {
        return Ok(());
    }
    let message = format!(
        "a chain of {} blocks spans {depth} Bitcoin blocks, so none of it is final ({} needed)",
        args.blocks, args.service.source.confirmations
    );
    Err(Failure::new(Exit::Usage, message).hint("use --blocks 1000 or more"))
}

fn spec(args: &DemoArgs) -> Spec {
    let network = args.service.source.network.clone().unwrap_or_else(|| "mainnet".into());
    Spec { blocks: args.blocks, seed: 1, profile: Profile::Nakamoto, network }
}

async fn show(args: &DemoArgs, service: &Service, output: Output) -> anyhow::Result<Vec<Check>> {
    let mut deeds = Vec::new();
    fill(args, service, output, &mut deeds).await?;
    let manifest = cut(service, output, &mut deeds).await?;
    let mut stock = stock::Stock::new(service, &manifest)?;
    deeds.extend(stock.download(output).await?);
    let restored = restore::Restored::create(service).await?;
    deeds.push(stock.restore(&restored.url, output).await?);
    output.say("comparing every row …");
    let begun = Instant::now();
    let checks = restored.compare(service, &manifest).await;
    restored.remove(service).await?;
    let checks = checks?;
    deeds.push(Deed {
        what: "compare both databases with the manifest".into(),
        seconds: begun.elapsed().as_secs_f64(),
        bytes: None,
    });
    tell(service, &manifest, &deeds, &checks, output);
    Ok(checks)
}

async fn fill(args: &DemoArgs, service: &Service, output: Output, deeds: &mut Vec<Deed>) -> anyhow::Result<()> {
    let blocks: i64 = sqlx::query_scalar("select count(*) from public.blocks").fetch_one(&service.services.indexed).await?;
    if blocks > 0 {
        output.say(&format!("the database holds {blocks} blocks already; taking them"));
        return Ok(());
    }
    let begun = Instant::now();
    let mut progress = output.progress("generating a chain", args.blocks);
    let report = synthetic::load(&service.services.indexed, &spec(args), |done| progress.set(done)).await?;
    progress.finish();
    let what = format!("generate {} blocks, {} transactions, {} events", report.blocks, report.transactions, report.events);
    deeds.push(Deed { what, seconds: begun.elapsed().as_secs_f64(), bytes: None });
    Ok(())
}

/// Runs the snapshot workflow and reads what it published.
async fn cut(service: &Service, output: Output, deeds: &mut Vec<Deed>) -> anyhow::Result<Manifest> {
    let begun = Instant::now();
    let request = workflows::prepare(&service.services, workflows::snapshot::NAME, Value::Null).await?;
    let run = service.engine.start(&request).await?;
    let mut progress = output.progress("snapshot: plan", 0);
    let ended = loop {
        let detail = service.engine.detail(run).await?.context("the run is gone from the ledger")?;
        if detail.run.state.is_finished() {
            break detail.run;
        }
        let seen = Seen::of(&serde_json::to_value(&detail)?);
        progress.phase(&format!("snapshot: {}", seen.step), seen.total);
        progress.set(seen.done);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    progress.finish();
    if ended.state != RunState::Succeeded {
        let why = ended.error.unwrap_or_else(|| ended.state.to_string());
        return Err(Failure::new(Exit::Failed, format!("the snapshot failed: {why}")).into());
    }
    let network = request.unique_key.unwrap_or_default();
    let latest = service.services.store.get(&Key::Latest(network)).await?.context("latest.json is gone")?;
    let pointer: Pointer = serde_json::from_slice(&latest.0)?;
    let path = snapshot::key::SnapshotPath::new(&pointer.network, &pointer.snapshot_id);
    let (manifest, _) = service.services.store.get(&Key::Manifest(path)).await?.context("the manifest is gone")?;
    let manifest = Manifest::from_bytes(&manifest)?;
    let what = format!("cut and publish snapshot {} at height {}", manifest.snapshot_id, manifest.block_height);
    deeds.push(Deed { what, seconds: begun.elapsed().as_secs_f64(), bytes: Some(manifest.size_bytes) });
    Ok(manifest)
}

fn tell(service: &Service, manifest: &Manifest, deeds: &[Deed], checks: &[Check], output: Output) {
    let url = &service.url;
    let urls = [
        ("manifest", format!("{url}/{}/latest", manifest.network)),
        ("archive", format!("{url}/{}/latest.tar.zst", manifest.network)),
        ("list", format!("{url}/snapshots")),
    ];
    let mut text = String::new();
    for deed in deeds {
        let size = deed.bytes.map(bytes).unwrap_or_default();
        text.push_str(&format!("{:>8.2} s  {:>9}  {}\n", deed.seconds, size, deed.what));
    }
    for check in checks {
        let found = check.found.as_ref().map(|found| format!(" ({found})")).unwrap_or_default();
        text.push_str(&format!("{}  {}{found}\n", if check.holds { "  holds" } else { "  FAILS" }, check.statement));
    }
    for (what, url) in &urls {
        text.push_str(&format!("{what:>9}  {url}\n"));
    }
    text.push_str(&format!("     next  snapshots list --url {url}"));
    let urls: serde_json::Map<String, Value> = urls.into_iter().map(|(what, url)| (what.into(), url.into())).collect();
    let value = json!({ "proved": proved(checks), "deeds": deeds, "checks": checks, "urls": urls,
        "snapshot": manifest.snapshot_id, "blockHeight": manifest.block_height });
    output.result(&text, &value);
}
