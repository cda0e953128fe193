//! A private cluster for each drill, in a directory that a watchdog deletes with the drill or its process.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use workflows::scratch::{Parts, Scratch, ScratchError, ScratchGuard, ScratchPlaces};

use super::directory;
use crate::disk::free_at;
use crate::embedded::data_dir::DataDir;
use crate::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};

/// Makes clusters under `parent`.
pub(super) struct PrivateClusters {
    pub(super) parent: PathBuf,
    pub(super) pg_bin: PathBuf,
    pub(super) durability: Durability,
}

impl ScratchPlaces for PrivateClusters {
    fn open(&self) -> BoxFuture<'_, Result<Scratch, ScratchError>> {
        self.start().boxed()
    }
}

impl PrivateClusters {
    async fn start(&self) -> Result<Scratch, ScratchError> {
        let parent = self.parent.clone();
        let made = tokio::task::spawn_blocking(move || directory(&parent)).await;
        let dir = made.map_err(|panic| ScratchError::place("make a directory", panic))??;
        let files = dir.path().join("files");
        std::fs::create_dir(&files).map_err(|error| ScratchError::place(format!("make {}", files.display()), error))?;
        let mut options = PostgresOptions::new(dir.postgres_dir());
        options.pg_bin = Some(self.pg_bin.clone());
        options.durability = self.durability;
        let started = EmbeddedPostgres::start(options).await;
        let postgres = started.map_err(|error| ScratchError::place("start a private PostgreSQL to restore into", error))?;
        Scratch::new(Parts {
            server: postgres.url_of("postgres"),
            prefix: "drill_".into(),
            dir: files,
            shares_disk: true,
            free_at,
            guard: Box::new(Cluster(dir)),
        })
    }
}

/// The watchdog of the directory stops the server in it; nothing in it needs to be flushed.
struct Cluster(DataDir);

impl ScratchGuard for Cluster {
    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), ScratchError>> {
        async move {
            let closed = tokio::task::spawn_blocking(move || self.0.close()).await;
            let cannot = "take the scratch directory away";
            closed.map_err(|panic| ScratchError::place(cannot, panic))?.map_err(|error| ScratchError::place(cannot, error))
        }
        .boxed()
    }
}
