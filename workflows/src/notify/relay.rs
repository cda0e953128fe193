//! From the ends of runs to runs that tell of them.
//!
//! Invariant: of each end one run tells, however many processes look and whenever they die: that it is told, and by which run,
//! is written in one transaction with the run.

use std::time::Duration;

use engine::{RunId, StartError, StartRun};
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::NAME;
use super::receivers::Receivers;
use crate::services::Services;
use crate::{schedules, snapshot};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until dropped. Does nothing where there is nobody to tell.
pub async fn relay(services: Services) {
    if !services.settings.receivers.hear() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = look(&services).await {
            tracing::warn!(error = %error, "cannot look for what operators must hear of, trying again");
        }
    }
}

async fn look(services: &Services) -> Result<(), StartError> {
    for event in untold(&services.control, &services.settings.receivers).await? {
        let mut tx = services.control.begin().await?;
        if !take(&mut tx, event).await? {
            continue;
        }
        let request = StartRun::new(NAME, json!({ "event": event }));
        let run = services.runs.start_in(&mut tx, &request).await?;
        note(&mut tx, event, run).await?;
        tx.commit().await?;
        tracing::info!(event, run.id = %run, "operators will be told how a run ended");
    }
    Ok(())
}

/// Ends of the last day, of what runs by itself, that somebody must hear of and nobody was told of: failures, findings, and,
/// for the dead man's switch, each snapshot that was promoted.
async fn untold(control: &PgPool, receivers: &Receivers) -> sqlx::Result<Vec<i64>> {
    let sql = "select e.id
               from snapshots.run r
               cross join lateral (
                   select id, kind from snapshots.event
                   where run_id = r.id and kind in ('run.failed', 'run.succeeded') order by id desc limit 1
               ) e
               cross join lateral (
                   select exists (
                       select 1 from snapshots.event f
                       where f.run_id = r.id and f.id < e.id and f.level = 'error' and f.kind !~ '^(step|group|run)[.]'
                         and f.id > coalesce((select max(p.id) from snapshots.event p
                                              where p.run_id = r.id and p.id < e.id
                                                and p.kind in ('run.failed', 'run.succeeded')), 0)
                   ) or e.kind = 'run.failed' as bad
               ) w
               where r.workflow = any($1) and r.state in ('failed', 'succeeded') and r.done_at > now() - interval '1 day'
                 and (w.bad and $2 or not w.bad and $3 and r.workflow = $4)
                 and not exists (select 1 from snapshots.notice n where n.event_id = e.id)
               order by e.id limit 100";
    let watched: Vec<String> = schedules::defaults().into_iter().map(|default| default.workflow).collect();
    sqlx::query_scalar(sql)
        .bind(watched)
        .bind(receivers.hears_alarms())
        .bind(receivers.hears_heartbeats())
        .bind(snapshot::NAME)
        .fetch_all(control)
        .await
}

/// Whether it is ours to tell; waits for somebody who is about to.
async fn take(tx: &mut PgConnection, event: i64) -> sqlx::Result<bool> {
    let sql = "insert into snapshots.notice (event_id) values ($1) on conflict do nothing";
    Ok(sqlx::query(sql).bind(event).execute(tx).await?.rows_affected() == 1)
}

async fn note(tx: &mut PgConnection, event: i64, run: RunId) -> sqlx::Result<()> {
    let sql = "update snapshots.notice set run_id = $2 where event_id = $1";
    sqlx::query(sql).bind(event).bind(run).execute(tx).await?;
    Ok(())
}
