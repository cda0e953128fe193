//! `snapshots chain generate`: a deterministic synthetic chain, as a recording or straight into a database.

use std::path::PathBuf;

use anyhow::Context;
use chain::synthetic::{self, Profile, Spec, SyntheticError};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::service::connect;

#[derive(Subcommand)]
pub(crate) enum ChainCommand {
    /// Generate a chain from a seed. The same seed gives the same chain.
    Generate(GenerateArgs),
}

#[derive(Args)]
pub(crate) struct GenerateArgs {
    /// Number of canonical blocks.
    #[arg(long)]
    blocks: u64,
    /// Any number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rhythm of the chain.
    #[arg(long, value_enum, default_value = "nakamoto")]
    profile: ProfileArg,
    /// Network the chain says it is.
    #[arg(long, default_value = "mainnet", value_parser = crate::config::network_name)]
    network: String,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// Write what a node would post, forks and redeliveries included; gzip if the name ends in .gz. FILE.expected.json says
    /// what an indexer must end with.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Load the canonical chain into an empty Secondlayer database; `env` takes DATABASE_URL, which keeps a password off the
    /// command line.
    #[arg(long, value_name = "DATABASE_URL")]
    into: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileArg {
    Nakamoto,
    Anchored,
    Quiet,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Nakamoto => Self::Nakamoto,
            ProfileArg::Anchored => Self::Anchored,
            ProfileArg::Quiet => Self::Quiet,
        }
    }
}

pub(crate) async fn run(command: ChainCommand, output: Output) -> anyhow::Result<()> {
    let ChainCommand::Generate(args) = command;
    let spec = Spec { blocks: args.blocks, seed: args.seed, profile: args.profile.into(), network: args.network };
    match (args.target.out, args.target.into) {
        (Some(file), _) => record(spec, file, output).await,
        (None, Some(url)) => load(&spec, &url, output).await,
        (None, None) => Err(Failure::new(Exit::Usage, "give --out or --into").into()),
    }
}

fn no_address() -> Failure {
    Failure::new(Exit::Usage, "--into env needs DATABASE_URL, which is not set").hint("set it, or give the address itself")
}

fn not_generated(error: SyntheticError) -> anyhow::Error {
    let (exit, hint) = match &error {
        SyntheticError::NoBlocks => (Exit::Usage, "use --blocks 1 or more"),
        SyntheticError::NotEmpty { .. } => (Exit::Refused, "name an empty database with --into"),
        SyntheticError::Write { .. } => (Exit::Failed, "check the folder of --out, its rights, and that its disk is not full"),
        _ => return error.into(),
    };
    Failure::caused(exit, "no chain was generated", error).hint(hint).into()
}

async fn record(spec: Spec, file: PathBuf, output: Output) -> anyhow::Result<()> {
    let path = file.clone();
    let written = tokio::task::spawn_blocking(move || synthetic::write_recording(&spec, &path)).await?;
    let expected = written.map_err(not_generated)?;
    output.result(&format!("wrote {}", file.display()), &json!({ "file": file, "expected": expected }));
    Ok(())
}

async fn load(spec: &Spec, url: &str, output: Output) -> anyhow::Result<()> {
    let url = match url {
        "env" => crate::config::Servers::from_env()?.database_url.ok_or_else(no_address)?,
        url => url.to_owned(),
    };
    let pool = connect(&url).await.context("cannot connect to the database")?;
    chain::migrate(&pool).await.context("cannot prepare the database")?;
    let mut progress = output.progress("loading blocks", spec.blocks);
    let report = synthetic::load(&pool, spec, |done| progress.set(done)).await.map_err(not_generated)?;
    progress.finish();
    output.result(
        &format!("loaded {} blocks, {} transactions, {} events", report.blocks, report.transactions, report.events),
        &json!({ "blocks": report.blocks, "transactions": report.transactions, "events": report.events }),
    );
    Ok(())
}
