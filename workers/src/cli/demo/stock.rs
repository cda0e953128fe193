//! The user's side of the demo: curl, sha256sum, tar and pg_restore, in a directory of their own.

use std::path::PathBuf;

use anyhow::Context;
use snapshot::manifest::Manifest;
use snapshot::stock::{self, LATEST, Line};
use tempfile::TempDir;

use super::Deed;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::service::Service;

/// What the product text says.
const JOBS: usize = 8;

/// Makes sure the tools are there before anything is started.
pub(super) fn check() -> Result<(), Failure> {
    let missing = stock::missing_tools();
    if missing.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Exit::NotFound, format!("the demo uses stock tools and misses {}", missing.join(", ")));
    Err(failure.hint("install them: apt-get install -y curl coreutils tar zstd"))
}

/// A user's directory and what they would download.
pub(super) struct Stock {
    dir: TempDir,
    latest: String,
    dated: String,
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
            latest: format!("{}/{}/{LATEST}", service.url, manifest.network),
            dated: format!("{}/{}", service.url, manifest.path()),
            archive: manifest.path().archive_name(),
            size_bytes: manifest.size_bytes,
            raw_bytes: manifest.raw_bytes,
            pg_restore: service.services.pg_restore.clone(),
        })
    }

    /// Downloads under both names, checks both, extracts one.
    pub(super) async fn download(&mut self, output: Output) -> anyhow::Result<Vec<Deed>> {
        let (latest, dated) = (&self.latest, &self.dated);
        let (size, raw) = (Some(self.size_bytes), Some(self.raw_bytes));
        let dir = self.dir.path();
        let lines = [
            (Line::download(dir, latest), size),
            (Line::download(dir, &format!("{latest}.sha256")), None),
            (Line::check(dir, &format!("{LATEST}.sha256")), None),
            (Line::download(dir, &format!("{dated}/{}", self.archive)), size),
            (Line::download(dir, &format!("{dated}/snapshot.sha256")), None),
            (Line::check(dir, "snapshot.sha256"), None),
            (Line::extract(dir, LATEST), raw),
        ];
        let mut deeds = Vec::new();
        for (line, bytes) in lines {
            deeds.push(run(output, line, bytes).await?);
        }
        Ok(deeds)
    }

    /// `pg_restore -j8`, as the product text says.
    pub(super) async fn restore(&self, database_url: &str, output: Output) -> anyhow::Result<Deed> {
        run(output, Line::restore(self.dir.path(), &self.pg_restore, database_url, JOBS)?, None).await
    }
}

async fn run(output: Output, line: Line, bytes: Option<u64>) -> anyhow::Result<Deed> {
    let what = line.text().to_owned();
    output.say(&format!("$ {what}"));
    let seconds = line.run().await?;
    Ok(Deed { what, seconds, bytes })
}
