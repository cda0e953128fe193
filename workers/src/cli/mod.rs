//! The command line: one file per verb.

mod api_key;
mod audit_log;
mod chain;
mod client;
mod create;
mod decide;
mod demo;
mod diff;
mod download;
mod events;
mod ingest;
mod list;
mod migrate;
mod mirror;
mod pause;
mod prune;
mod published;
mod recovery_key;
mod restore;
mod run;
mod schedule;
mod serve;
mod show;
mod signals;
mod signing_key;
mod target;
mod update;
mod verify;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::exit::{Exit, Failure};
use crate::logs::Logs;
use crate::output::Output;

/// Cut, publish, prove and restore snapshots of a Secondlayer indexer's database.
#[derive(Parser)]
#[command(name = "snapshots", version, about, max_term_width = 110)]
struct Cli {
    /// Speak JSON: one object a line on stdout, the last one the result or the error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole way on a synthetic chain: cut, publish, download, restore with stock tools, compare; then keep serving.
    Demo(demo::DemoArgs),
    /// Run the service.
    Serve(serve::ServeArgs),
    /// Create or update our tables in the databases that DATABASE_URL and CONTROL_DATABASE_URL name.
    Migrate,
    /// Feed recordings of a stacks-node's event observer into the database that DATABASE_URL names.
    Ingest(ingest::IngestArgs),
    /// Synthetic chains.
    #[command(subcommand)]
    Chain(chain::ChainCommand),
    /// Keys for the API; they are in the database that CONTROL_DATABASE_URL or DATABASE_URL names.
    #[command(subcommand)]
    ApiKey(api_key::ApiKeyCommand),
    /// Cut a snapshot now.
    Create(create::CreateArgs),
    /// Runs of workflows: start, list, show, watch, retry, cancel.
    #[command(subcommand)]
    Run(run::RunCommand),
    /// What runs by itself, and when.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// The processes of a service.
    #[command(subcommand)]
    Worker(worker::WorkerCommand),
    /// Workflows: list, pause, resume.
    #[command(subcommand)]
    Workflow(pause::PauseCommand),
    /// Queues of steps: list, pause, resume.
    #[command(subcommand)]
    Queue(pause::PauseCommand),
    /// Who did what, newest first.
    AuditLog(audit_log::AuditLogArgs),
    /// List published snapshots.
    List(list::ListArgs),
    /// Show one snapshot.
    Show(show::ShowArgs),
    /// Restore a published snapshot into an empty database; the service need not run.
    Restore(restore::RestoreArgs),
    /// Bring a restored, unmodified database to the newest snapshot.
    Update(update::UpdateArgs),
    /// Check what is published, or a restored database, against a signed manifest.
    Verify(verify::VerifyArgs),
    /// Keys that sign snapshots: make, show, rotate.
    #[command(subcommand)]
    SigningKey(signing_key::SigningKeyCommand),
    /// Make an identity that opens snapshots of the full profile, on the machine of the person who keeps it.
    RecoveryKey(recovery_key::RecoveryKeyArgs),
    /// Take a published snapshot back; `latest` goes to the newest that is left.
    Retract(decide::DecideArgs),
    /// Send readers to a snapshot again.
    Publish(decide::PublishArgs),
    /// Keep a snapshot from being pruned.
    Pin(decide::DecideArgs),
    /// Let a snapshot be pruned again.
    Unpin(decide::OneArgs),
    /// Remove what is too old and what nobody names any more.
    Prune(prune::PruneArgs),
    /// Show what differs between two snapshots.
    Diff(diff::DiffArgs),
    /// Download a snapshot's archive and check it.
    Download(download::DownloadArgs),
}

/// Parses, runs, and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    Logs { json: cli.json, service: matches!(cli.command, Command::Serve(_)) }.start();
    let output = Output::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(output.error(&error.into()) as u8),
    };
    match runtime.block_on(run(cli.command, output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(output.error(&error) as u8),
    }
}

/// Help and the version are no failure; all else is, and a program that asked for JSON gets its last line.
fn not_understood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if !std::env::args_os().any(|arg| arg == "--json") {
        let _ = error.print();
        return ExitCode::from(Exit::Usage as u8);
    }
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing".to_owned(),
        _ => {
            let text = error.to_string();
            let said = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            said.split_whitespace().collect::<Vec<_>>().join(" ")
        }
    };
    let failure =
        Failure::new(Exit::Usage, message).hint("`snapshots --help` and `snapshots <command> --help` explain the arguments");
    ExitCode::from(Output::new(true).error(&failure.into()) as u8)
}

async fn run(command: Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(args, output).await,
        Command::Serve(args) => serve::run(args, output).await,
        Command::Migrate => migrate::run(output).await,
        Command::Ingest(args) => ingest::run(args, output).await,
        Command::Chain(command) => chain::run(command, output).await,
        Command::ApiKey(command) => api_key::run(command, output).await,
        Command::Create(args) => create::run(args, output).await,
        Command::Run(command) => run::run(command, output).await,
        Command::Schedule(command) => schedule::run(command, output).await,
        Command::Worker(command) => worker::run(command, output).await,
        Command::Workflow(command) => pause::run(pause::Kind::Workflow, command, output).await,
        Command::Queue(command) => pause::run(pause::Kind::Queue, command, output).await,
        Command::AuditLog(args) => audit_log::run(args, output).await,
        Command::List(args) => list::run(args, output).await,
        Command::Show(args) => show::run(args, output).await,
        Command::Restore(args) => restore::run(args, output).await,
        Command::Update(args) => update::run(args, output).await,
        Command::Verify(args) => verify::run(args, output).await,
        Command::SigningKey(command) => signing_key::run(command, output),
        Command::RecoveryKey(args) => recovery_key::run(&args, output),
        Command::Retract(args) => decide::retract(args, output).await,
        Command::Publish(args) => decide::publish(args, output).await,
        Command::Pin(args) => decide::pin(args, output).await,
        Command::Unpin(args) => decide::unpin(args, output).await,
        Command::Prune(args) => prune::run(args, output).await,
        Command::Diff(args) => diff::run(args, output).await,
        Command::Download(args) => download::run(args, output).await,
    }
}
