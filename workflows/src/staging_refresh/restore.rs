//! Step `restore`: the snapshot into a database of the run's own. An attempt after a crash goes on where the restore's ledger says.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::fetch::{OpenError, Opened, Source, Wanted, open};
use snapshot::load::{self, Options, State};
use sqlx::PgPool;

use super::Params;
use super::databases::Staging;
use crate::restoring;
use crate::services::Services;
use crate::step_error::{Classify, classify};

/// The database that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    pub(super) snapshot: String,
    pub(super) block_height: u64,
    /// Databases that were dropped to make room.
    pub(super) dropped: Vec<String>,
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Restored, StepError> {
    let services = ctx.services();
    let run = ctx.run().0;
    let mut staging = Staging::open(services).await?;
    staging.current().await?;
    let dropped = staging.clean(Utc::now() - TimeDelta::hours(i64::from(params.keep_hours)), run).await?;
    let next = staging.make(run).await?;
    let options = Options { verify: true, ..restoring::options(|_| None) };
    let pool = load::connect(&staging.url_of(&next), options.jobs).await.map_err(classify)?;
    let source = Source::bucket(services.store.clone());
    let opened = Arc::new(find(services, &source, &pool, &params).await?);
    let restored = restoring::into_database(&ctx, &pool, (&source, &opened), &options).await;
    pool.close().await;
    let outcome = restored?.map_err(classify)?;
    if let Some(report) = outcome.report.filter(|report| !report.proved()) {
        let wrong: Vec<String> = report.checks.into_iter().filter(|check| !check.holds).map(|check| check.statement).collect();
        return Err(StepError::fail(std::io::Error::other(format!(
            "the restored database is not the snapshot: {}",
            wrong.join("; ")
        ))));
    }
    let manifest = &opened.manifest;
    Ok(Restored { snapshot: manifest.path().to_string(), block_height: manifest.block_height, dropped })
}

/// The snapshot that was asked for; an unfinished restore is ended before anything newer is begun, since `latest` may have moved.
async fn find(services: &Services, source: &Source, pool: &PgPool, params: &Params) -> Result<Opened, StepError> {
    let unfinished = load::held(pool).await.map_err(classify)?.filter(|held| held.state == State::Loading);
    let Some(keyring) = &services.signing else {
        return Err(StepError::fail(std::io::Error::other("snapshots are not signed any more, so none is believed")));
    };
    let wanted = Wanted {
        network: params.network.clone(),
        id: unfinished.map(|held| held.manifest.snapshot_id).or_else(|| params.snapshot.clone()),
        trusted: keyring.trusted().map_err(StepError::retry)?,
        seen: None,
        // The publisher itself asks: nobody leads it back, and an old snapshot is better than none.
        allow_rollback: true,
    };
    open(source, &wanted).await.map_err(classify)
}

impl Classify for OpenError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Fetch(error) if error.is_unreachable())
    }
}
