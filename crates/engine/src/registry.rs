//! The row by which a process is seen: who, since when, what it can run, whether it is draining.
//! Invariant: an id is never used twice, so a row's `seen_at` speaks of one process only.
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{catalog::Catalog, model::Queue};

pub(crate) struct Registration {
    pub(crate) id: String,
    host: String,
    version: String,
    workflows: Value,
}

impl Registration {
    pub(crate) fn new(host: &str, version: &str, catalog: &Catalog) -> Self {
        let (names, versions) = catalog.versions();
        let workflows = names.iter().zip(versions).map(|(name, version)| json!({ "name": name, "version": version }));
        Self {
            id: format!("{host}-{}-{}", std::process::id(), Uuid::now_v7().simple()),
            host: host.to_owned(),
            version: version.to_owned(),
            workflows: workflows.collect(),
        }
    }

    pub(crate) async fn insert(&self, pool: &PgPool) -> sqlx::Result<()> {
        let queues: Vec<&str> = Queue::ALL.iter().map(|queue| queue.as_str()).collect();
        let sql = "insert into snapshots.worker (id, host, pid, version, queues, workflows) \
             values ($1, $2, $3, $4, $5, $6) on conflict (id) do update set seen_at = now(), draining = false";
        sqlx::query(sql)
            .bind(&self.id)
            .bind(&self.host)
            .bind(std::process::id().cast_signed())
            .bind(&self.version)
            .bind(queues)
            .bind(&self.workflows)
            .execute(pool)
            .await?;
        Ok(())
    }

    pub(crate) async fn beat(&self, pool: &PgPool) -> sqlx::Result<()> {
        sqlx::query("update snapshots.worker set seen_at = now() where id = $1").bind(&self.id).execute(pool).await?;
        Ok(())
    }

    pub(crate) async fn drain(&self, pool: &PgPool) -> sqlx::Result<()> {
        let sql = "update snapshots.worker set draining = true where id = $1";
        sqlx::query(sql).bind(&self.id).execute(pool).await?;
        Ok(())
    }

    pub(crate) async fn prune(&self, pool: &PgPool) -> sqlx::Result<()> {
        let sql = "delete from snapshots.worker where seen_at < now() - interval '1 day'";
        sqlx::query(sql).execute(pool).await?;
        Ok(())
    }
}
