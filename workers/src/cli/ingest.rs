//! `snapshots ingest`: replays recordings into a database as a node's posts would have filled it.

use std::path::PathBuf;

use anyhow::Context;
use chain::Ingest;
use clap::Args;
use serde_json::json;

use crate::config::{Servers, network_name};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::service::connect;

#[derive(Args)]
pub(crate) struct IngestArgs {
    /// Recordings: .ndjson or .ndjson.gz, one post a line, in order of arrival.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Network the recordings are of.
    #[arg(long, env = "SNAPSHOTS_NETWORK", default_value = "mainnet", value_parser = network_name)]
    network: String,
}

pub(crate) async fn run(args: IngestArgs, output: Output) -> anyhow::Result<()> {
    let Some(url) = Servers::from_env()?.database_url else {
        let failure = Failure::new(Exit::Usage, "DATABASE_URL is not set");
        return Err(failure.hint("set it to the database to fill; a running service also takes the posts over HTTP").into());
    };
    let missing = args.files.iter().find(|file| !file.exists());
    if let Some(file) = missing {
        let failure = Failure::new(Exit::NotFound, format!("there is no file {}", file.display()));
        return Err(failure.hint("name recordings that exist; `snapshots chain generate --out FILE` makes one").into());
    }
    let pool = connect(&url).await.context("cannot connect to the indexed database (DATABASE_URL)")?;
    chain::migrate(&pool).await.context("cannot prepare the indexed database")?;
    let ingest = Ingest::new(pool, args.network);
    let mut progress = output.progress("replaying", 0);
    let mut posts = 0;
    for file in &args.files {
        progress.phase(&format!("replaying {}", file.display()), 0);
        let before = posts;
        let replayed = ingest.replay_file(file, |summary| progress.set(before + summary.posts)).await;
        posts += replayed.with_context(|| format!("cannot replay {}", file.display()))?.posts;
    }
    progress.finish();
    output.result(&format!("replayed {posts} posts"), &json!({ "posts": posts, "files": args.files }));
    Ok(())
}
