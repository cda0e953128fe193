//! The row by which a process is seen: who, since when, in which roles, what it can run, whether it is draining.
//! Invariant: an id is never used twice, so a row's `seen_at` speaks of one process only.
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tracing::warn;
use uuid::Uuid;

use crate::{catalog::Catalog, engine::EngineConfig, error::chain};

pub(crate) struct Registration {
    pub(crate) id: String,
    host: String,
    version: String,
    roles: Vec<String>,
    queues: Vec<&'static str>,
    workflows: Value,
    /// Whether this worker is to take no more work, as of the last beat.
    pub(crate) draining: watch::Sender<bool>,
}

impl Registration {
    /// A process that takes no steps knows no workflow: runs must not wait for it.
    pub(crate) fn new(config: &EngineConfig, catalog: &Catalog) -> Self {
        let (names, versions) = catalog.versions();
        let known = names.iter().zip(versions).filter(|_| !config.queues.is_empty());
        Self {
            id: format!("{}-{}-{}", config.host, std::process::id(), Uuid::now_v7().simple()),
            host: config.host.clone(),
            version: config.version.clone(),
            roles: config.roles.clone(),
            queues: config.queues.iter().map(|queue| queue.as_str()).collect(),
            workflows: known.map(|(name, version)| json!({ "name": name, "version": version })).collect(),
            draining: watch::Sender::new(false),
        }
    }

    pub(crate) async fn insert(&self, pool: &PgPool) -> sqlx::Result<()> {
        let sql = "insert into snapshots.worker (id, host, pid, version, roles, queues, workflows) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do update set seen_at = now()";
        sqlx::query(sql)
            .bind(&self.id)
            .bind(&self.host)
            .bind(std::process::id().cast_signed())
            .bind(&self.version)
            .bind(&self.roles)
            .bind(&self.queues)
            .bind(&self.workflows)
            .execute(pool)
            .await?;
        Ok(())
    }

    /// Beats until dropped. A process that slept for a day finds its row pruned and writes it again.
    pub(crate) async fn keep(&self, pool: &PgPool, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.beat(pool).await {
                warn!(error = chain(&error), "cannot beat, trying again");
            }
        }
    }

    /// Says that the process lives, and learns whether it is to drain; an operator may have set that.
    async fn beat(&self, pool: &PgPool) -> sqlx::Result<()> {
        let sql = "update snapshots.worker set seen_at = now() where id = $1 returning draining";
        match sqlx::query_scalar(sql).bind(&self.id).fetch_optional(pool).await? {
            Some(draining) => _ = self.draining.send_replace(draining),
            None => self.insert(pool).await?,
        }
        Ok(())
    }

    pub(crate) async fn drain(&self, pool: &PgPool) -> sqlx::Result<()> {
        let sql = "update snapshots.worker set draining = true where id = $1";
        sqlx::query(sql).bind(&self.id).execute(pool).await?;
        Ok(())
    }

    /// Takes the row away: the process has ended as it should. One that cannot be deleted is soon seen to be gone.
    pub(crate) async fn remove(&self, pool: &PgPool) {
        let sql = "delete from snapshots.worker where id = $1";
        if let Err(error) = sqlx::query(sql).bind(&self.id).execute(pool).await {
            warn!(error = chain(&error), "cannot take this worker off the list");
        }
    }

    pub(crate) async fn prune(&self, pool: &PgPool) -> sqlx::Result<()> {
        let sql = "delete from snapshots.worker where seen_at < now() - interval '1 day'";
        sqlx::query(sql).execute(pool).await?;
        Ok(())
    }
}
