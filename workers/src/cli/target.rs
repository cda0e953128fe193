//! The database that `restore`, `update` and `verify` work on, and how they tell what they do.

use std::sync::Mutex;

use anyhow::Context;
use clap::Args;
use snapshot::load::{Options, Selection, Watch};
use sqlx::PgPool;

use crate::disk::free_at;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Progress};

/// Which database.
#[derive(Args)]
pub(crate) struct TargetArgs {
    /// Database to work on; `env`, the default, takes DATABASE_URL, which keeps a password off the command line.
    #[arg(long, value_name = "DATABASE_URL", default_value = "env", hide_default_value = true)]
    to: String,
    /// Connections that work at once; by default one for each processor of this machine, at most 8.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
}

impl TargetArgs {
    /// Its URL. Holds a password: never log it.
    pub(crate) fn url(&self) -> Result<String, Failure> {
        if self.to != "env" {
            return Ok(self.to.clone());
        }
        std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()).ok_or_else(|| {
            let failure = Failure::new(Exit::Usage, "no database is named: DATABASE_URL is not set");
            failure.hint("set DATABASE_URL, or name the database with --to")
        })
    }

    pub(crate) fn jobs(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(1, 8);
        self.jobs.map_or_else(cores, usize::from)
    }

    /// Connects. Other users of the machine can read a command line, so a password in it is remarked upon.
    pub(crate) async fn connect(&self, output: Output) -> anyhow::Result<PgPool> {
        let shown = url::Url::parse(&self.to).is_ok_and(|url| url.password().is_some());
        if shown {
            output.say("warning: the password after --to can be read by every user of this machine; set DATABASE_URL instead");
        }
        snapshot::load::connect(&self.url()?, self.jobs()).await.context("cannot connect to the database")
    }

    /// The usual way: resumable, vacuumed and checked.
    pub(crate) fn options(&self) -> Options {
        Options {
            jobs: self.jobs(),
            selection: Selection::default(),
            fast: false,
            check_first: false,
            vacuum: true,
            verify: true,
            deep: false,
            free_disk: None,
            free_at,
        }
    }
}

/// Tells steps and progress.
pub(crate) struct Follow {
    output: Output,
    progress: Mutex<Option<Progress>>,
}

impl Follow {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, progress: Mutex::new(None) }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Ok(mut progress) = self.progress.lock()
            && let Some(progress) = progress.take()
        {
            progress.finish();
        }
    }
}

impl Watch for Follow {
    fn step(&self, number: usize, of: usize, name: &str) {
        self.finish();
        self.output.step(number, of, name);
        if let Ok(mut progress) = self.progress.lock() {
            *progress = Some(self.output.progress(&format!("{number}/{of} {name}"), 0));
        }
    }

    fn progress(&self, done: u64, total: u64, unit: &'static str) {
        if let Ok(mut progress) = self.progress.lock()
            && let Some(progress) = progress.as_mut()
        {
            progress.count(done, total, unit);
        }
    }

    fn note(&self, text: &str) {
        self.output.say(text);
    }
}
