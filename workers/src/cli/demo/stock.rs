//! The user's side of the demo: curl, sha256sum, tar and pg_restore, in a directory of their own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context;
use snapshot::manifest::Manifest;
use tempfile::TempDir;
use tokio::process::Command;

use super::Deed;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::service::Service;

/// Makes sure the tools are there before anything is started.
pub(super) fn check() -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let missing: Vec<&str> = ["curl", "sha256sum", "tar", "zstd"].into_iter().filter(|tool| !there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Exit::NotFound, format!("the demo uses stock tools and misses {}", missing.join(", ")));
    Err(failure.hint("install them: apt-get install -y curl coreutils tar zstd"))
}

/// A user's directory and what they would download.
pub(super) struct Stock {
    dir: TempDir,
    url: String,
    network: String,
    id: String,
    archive: String,
    size_bytes: u64,
    raw_bytes: u64,
    pg_restore: PathBuf,
}

impl Stock {
    pub(super) fn new(service: &Service, manifest: &Manifest) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("snapshots-demo-").tempdir().context("cannot make a directory for the download")?;
        Ok(Self {
            dir,
            url: service.url.clone(),
            network: manifest.network.clone(),
            id: manifest.snapshot_id.clone(),
            archive: manifest.path().archive_name(),
            size_bytes: manifest.size_bytes,
            raw_bytes: manifest.raw_bytes,
            pg_restore: service.pg_program("pg_restore"),
        })
    }

    /// Downloads under both names, checks both, extracts one.
    pub(super) async fn download(&mut self, output: Output) -> anyhow::Result<Vec<Deed>> {
        let latest = format!("{}/{}/latest.tar.zst", self.url, self.network);
        let dated = format!("{}/{}/{}", self.url, self.network, self.id);
        let archive = format!("{dated}/{}", self.archive);
        let (size, raw) = (Some(self.size_bytes), Some(self.raw_bytes));
        Ok(vec![
            self.run(output, size, "curl", &["-fsSLO", &latest]).await?,
            self.run(output, None, "curl", &["-fsSLO", &format!("{latest}.sha256")]).await?,
            self.run(output, None, "sha256sum", &["-c", "latest.tar.zst.sha256"]).await?,
            self.run(output, size, "curl", &["-fsSLO", &archive]).await?,
            self.run(output, None, "curl", &["-fsSLO", &format!("{dated}/snapshot.sha256")]).await?,
            self.run(output, None, "sha256sum", &["-c", "snapshot.sha256"]).await?,
            self.run(output, raw, "tar", &["--zstd", "-xf", "latest.tar.zst"]).await?,
        ])
    }

    /// `pg_restore -j8`, as the product text says.
    pub(super) async fn restore(&self, database_url: &str, output: Output) -> anyhow::Result<Deed> {
        let mut command = snapshot::client::command(&self.pg_restore, database_url)?;
        command.args(["-j8", "snapshot/"]);
        self.execute(output, None, "pg_restore -j8 -d $DATABASE_URL snapshot/", command).await
    }

    async fn run(&self, output: Output, bytes: Option<u64>, program: &str, args: &[&str]) -> anyhow::Result<Deed> {
        let mut command = Command::new(program);
        command.args(args).kill_on_drop(true);
        self.execute(output, bytes, &format!("{program} {}", args.join(" ")), command).await
    }

    async fn execute(&self, output: Output, bytes: Option<u64>, what: &str, mut command: Command) -> anyhow::Result<Deed> {
        output.say(&format!("$ {what}"));
        let begun = Instant::now();
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        let done = command.output().await.with_context(|| format!("cannot run `{what}`"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(Failure::new(Exit::Failed, format!("`{what}` ended with {}: {}", done.status, said.trim())).into());
        }
        Ok(Deed { what: what.to_owned(), seconds: begun.elapsed().as_secs_f64(), bytes })
    }
}
