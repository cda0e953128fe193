//! Schedules as operators see and change them. When they fire is `ticks`' business, firing them `fire`'s, where they come
//! from `defaults`'.
//! Invariant: a change that is refused changes nothing; one that is done is in the audit log.
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};

use crate::{
    audit,
    client::Client,
    crontab::CronError,
    error::{ScheduleError, StartError},
    model::{RunId, words},
    once::{self, Idempotency, Started},
    start::{Tick, start},
    ticks::Cron,
};

words! {
    /// What a tick does while an earlier run of the schedule is unfinished.
    Overlap {
        /// It is left out.
        Skip = "skip",
        /// It waits for the end of that run.
        Queue = "queue",
        /// It cancels that run and starts when that has ended.
        CancelOld = "cancel_old",
    }
}

words! {
    /// What becomes of ticks that no scheduler was there for.
    Catchup {
        /// A tick more than five minutes old is left out.
        None = "none",
        /// The last one is fired, however old.
        Last = "last",
        /// Every one is fired, oldest first.
        All = "all",
    }
}

/// A schedule.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// What it starts.
    pub workflow: String,
    /// The parameters of its runs.
    pub params: Value,
    /// The unique key of its runs.
    pub unique_key: Option<String>,
    /// The priority of its runs.
    pub priority: i32,
    /// Five fields, as in crontab(5).
    pub cron: String,
    /// IANA name.
    pub timezone: String,
    /// What a tick does while an earlier run is unfinished.
    pub overlap: Overlap,
    /// What becomes of missed ticks.
    pub catchup: Catchup,
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Why.
    pub pause_reason: Option<String>,
    /// The tick it waits for.
    pub next_at: Option<DateTime<Utc>>,
    /// The tick it dealt with last.
    pub last_tick_at: Option<DateTime<Utc>>,
    /// What it did then: `fired`, `skipped`, `waiting`, `missed`, `duplicate` or `refused`.
    pub last_outcome: Option<String>,
    /// Why, if it did not fire.
    pub last_detail: Option<String>,
    /// The run it started last.
    pub last_run_id: Option<RunId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When an operator or an upgrade changed it last.
    pub updated_at: DateTime<Utc>,
}

impl Schedule {
    /// The next `count` ticks after `now`, whether or not it is paused.
    ///
    /// # Errors
    /// The stored expression or time zone is not valid.
    pub fn next_fires(&self, now: DateTime<Utc>, count: usize) -> Result<Vec<DateTime<Utc>>, CronError> {
        Ok(Cron::parse(&self.cron, &self.timezone)?.next_fires(now, count))
    }

    /// Whether runs of both are the same.
    pub(crate) fn wants_the_same(&self, other: &Self) -> bool {
        let wanted = |schedule: &Self| (schedule.workflow.clone(), schedule.unique_key.clone(), schedule.priority);
        wanted(self) == wanted(other) && self.params == other.params
    }
}

/// What to change of a schedule; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleChange {
    /// Five fields, as in crontab(5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// IANA name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What a tick does while an earlier run is unfinished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// What becomes of missed ticks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catchup: Option<Catchup>,
    /// The parameters of its runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// The priority of its runs, 0..=1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

pub(crate) const SCHEDULE: &str = "name, workflow, params, unique_key, priority, cron, timezone, overlap, catchup, paused_at, \
     paused_by, pause_reason, next_at, last_tick_at, last_outcome, last_detail, last_run_id, created_at, updated_at";

impl Client {
    /// All schedules by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn schedules(&self) -> sqlx::Result<Vec<Schedule>> {
        let sql = format!("select {SCHEDULE} from snapshots.schedule order by name");
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&self.pool).await
    }

    /// One schedule.
    ///
    /// # Errors
    /// [`ScheduleError::Unknown`], or the database's.
    pub async fn schedule(&self, name: &str) -> Result<Schedule, ScheduleError> {
        locked(&mut *self.pool.acquire().await?, name).await
    }

    /// Stops a schedule from firing; its ticks from here on are not caught up later.
    ///
    /// # Errors
    /// [`ScheduleError::Unknown`], [`ScheduleError::AlreadyPaused`], or the database's.
    pub async fn pause_schedule(&self, name: &str, reason: &str, actor: &str) -> Result<Schedule, ScheduleError> {
        let mut tx = self.pool.begin().await?;
        let found = locked(&mut tx, name).await?;
        if found.paused_at.is_some() {
            let reason = found.pause_reason.unwrap_or_default();
            return Err(ScheduleError::AlreadyPaused { name: found.name, reason });
        }
        let sql = "update snapshots.schedule set paused_at = now(), paused_by = $2, pause_reason = $3 where name = $1";
        sqlx::query(sql).bind(name).bind(actor).bind(reason).execute(&mut *tx).await?;
        record(&mut tx, actor, "schedule.pause", name, &json!({ "reason": reason })).await?;
        let paused = locked(&mut tx, name).await?;
        tx.commit().await?;
        Ok(paused)
    }

    /// Lets a schedule fire again, beginning with its next tick.
    ///
    /// # Errors
    /// [`ScheduleError::Unknown`], [`ScheduleError::NotPaused`], or the database's.
    pub async fn resume_schedule(&self, name: &str, actor: &str) -> Result<Schedule, ScheduleError> {
        let mut tx = self.pool.begin().await?;
        let found = locked(&mut tx, name).await?;
        if found.paused_at.is_none() {
            return Err(ScheduleError::NotPaused { name: found.name });
        }
        let next = Cron::parse(&found.cron, &found.timezone)?.next_after(now(&mut *tx).await?);
        let sql = "update snapshots.schedule set paused_at = null, paused_by = null, pause_reason = null, next_at = $2 \
             where name = $1";
        sqlx::query(sql).bind(name).bind(next).execute(&mut *tx).await?;
        record(&mut tx, actor, "schedule.resume", name, &json!({ "reason": found.pause_reason })).await?;
        let resumed = locked(&mut tx, name).await?;
        tx.commit().await?;
        Ok(resumed)
    }

    /// Changes a schedule; with a new expression or time zone it waits for that one's next tick.
    ///
    /// # Errors
    /// See [`ScheduleError`]; nothing was changed then.
    pub async fn change_schedule(&self, name: &str, change: &ScheduleChange, actor: &str) -> Result<Schedule, ScheduleError> {
        if let Some(params) = &change.params {
            let workflow = self.schedule(name).await?.workflow;
            self.catalog.prepare(&workflow, params.clone()).await?;
        }
        let mut tx = self.pool.begin().await?;
        let old = locked(&mut tx, name).await?;
        let cron = change.cron.as_ref().unwrap_or(&old.cron);
        let timezone = change.timezone.as_ref().unwrap_or(&old.timezone);
        let ticks = Cron::parse(cron, timezone)?;
        let priority = change.priority.unwrap_or(old.priority);
        if !(0..=1000).contains(&priority) {
            return Err(StartError::BadPriority { priority }.into());
        }
        let same = (cron, timezone) == (&old.cron, &old.timezone);
        let next = if same { old.next_at } else { ticks.next_after(now(&mut *tx).await?) };
        let sql = "update snapshots.schedule set cron = $2, timezone = $3, overlap = $4, catchup = $5, params = $6, \
             priority = $7, next_at = $8, updated_at = now() where name = $1";
        sqlx::query(sql)
            .bind(name)
            .bind(cron)
            .bind(timezone)
            .bind(change.overlap.unwrap_or(old.overlap).as_str())
            .bind(change.catchup.unwrap_or(old.catchup).as_str())
            .bind(change.params.as_ref().unwrap_or(&old.params))
            .bind(priority)
            .bind(next)
            .execute(&mut *tx)
            .await?;
        record(&mut tx, actor, "schedule.change", name, &json!({ "change": change })).await?;
        let changed = locked(&mut tx, name).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// Starts a run of the schedule now, paused or not; its ticks stay as they are. With a key that has started one
    /// before, nothing is started.
    ///
    /// # Errors
    /// See [`ScheduleError`].
    pub async fn run_schedule(&self, name: &str, key: Option<&Idempotency<'_>>, actor: &str) -> Result<Started, ScheduleError> {
        let request = self.catalog.request_of(&self.schedule(name).await?).await?;
        let mut tx = self.pool.begin().await?;
        if let Some(run) = once::begun(&mut tx, key).await? {
            return Ok(Started { run, replayed: true });
        }
        locked(&mut tx, name).await?;
        let tick = Tick { schedule: name, fire_at: None };
        let run = start(&mut tx, &self.catalog, &request, Some(tick)).await?;
        once::keep(&mut tx, key, run).await?;
        record(&mut tx, actor, "schedule.run", name, &json!({ "run": run })).await?;
        tx.commit().await?;
        Ok(Started { run, replayed: false })
    }
}

async fn record(tx: &mut PgConnection, actor: &str, act: &str, name: &str, details: &Value) -> sqlx::Result<()> {
    audit::record(tx, actor, (act, &format!("schedule {name}")), details).await
}

/// The schedule, held until the transaction ends.
async fn locked(conn: &mut PgConnection, name: &str) -> Result<Schedule, ScheduleError> {
    let sql = format!("select {SCHEDULE} from snapshots.schedule where name = $1 for update");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(name).fetch_optional(conn).await?;
    found.ok_or_else(|| ScheduleError::Unknown { name: name.to_owned() })
}

/// The database's clock: one for all schedulers.
pub(crate) async fn now(db: impl PgExecutor<'_>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("select now()").fetch_one(db).await
}
