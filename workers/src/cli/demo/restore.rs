//! The database the demo restores into, beside the one that was snapshotted.

use anyhow::Context;
use snapshot::manifest::Manifest;
use snapshot::verify::{self, Check, Subject};
use sqlx::Executor;

use crate::exit::{Exit, Failure};
use crate::service::{Service, connect};

/// Name of the database; it is the demo's own, so an older one is replaced.
const DATABASE: &str = "snapshots_demo_restored";

/// An empty database for `pg_restore`.
pub(super) struct Restored {
    pub(super) url: String,
}

impl Restored {
    pub(super) async fn create(service: &Service) -> anyhow::Result<Self> {
        let mut url: url::Url = service.services.indexed_url.parse().context("the database URL cannot be parsed")?;
        url.set_path(DATABASE);
        drop_database(service).await?;
        let created = service.services.indexed.execute("create database snapshots_demo_restored template template0").await;
        created.map_err(|error| {
            let failure = Failure::caused(Exit::Auth, format!("cannot create the database {DATABASE} to restore into"), error);
            failure.hint("the role in DATABASE_URL needs CREATEDB for the demo")
        })?;
        Ok(Self { url: url.to_string() })
    }

    /// Compares both databases with the manifest: the restored one must be it, the source must still contain it.
    pub(super) async fn compare(&self, service: &Service, manifest: &Manifest) -> anyhow::Result<Vec<Check>> {
        let pool = connect(&self.url).await.context("cannot connect to the restored database")?;
        let restored = verify::database(&pool, manifest, Subject::Restored, 2).await?;
        pool.close().await;
        let source = verify::database(&service.services.indexed, manifest, Subject::Source, 2).await?;
        let named = |name: &'static str| move |check: Check| Check { statement: format!("{name}: {}", check.statement), ..check };
        let checks = restored.checks.into_iter().map(named("restored")).chain(source.checks.into_iter().map(named("source")));
        Ok(checks.collect())
    }

    pub(super) async fn remove(self, service: &Service) -> anyhow::Result<()> {
        drop_database(service).await
    }
}

async fn drop_database(service: &Service) -> anyhow::Result<()> {
    let dropped = service.services.indexed.execute("drop database if exists snapshots_demo_restored with (force)").await;
    dropped.context("cannot drop the demo's database")?;
    Ok(())
}
