//! Schedules as operators see and change them. When they fire is `ticks`' business, firing them `fire`'s.
//! Invariant: what the code gives as default is inserted once; from then on the row belongs to the operators.
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
    start::{StartRun, Tick, start},
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

    pub(crate) fn request(&self) -> StartRun {
        let mut request = StartRun::new(&self.workflow, self.params.clone());
        request.unique_key.clone_from(&self.unique_key);
        request.priority = self.priority;
        request
    }
}

/// A schedule that comes with the program.
#[derive(Debug, Clone)]
pub struct ScheduleDefault {
    /// Its name; forever, since operators' changes hang on it.
    pub name: String,
    /// What it starts.
    pub workflow: String,
    /// The parameters of its runs.
    pub params: Value,
    /// The unique key of its runs.
    pub unique_key: Option<String>,
    /// Five fields, as in crontab(5).
    pub cron: String,
    /// IANA name.
    pub timezone: String,
    /// What a tick does while an earlier run is unfinished.
    pub overlap: Overlap,
    /// What becomes of missed ticks.
    pub catchup: Catchup,
}

impl ScheduleDefault {
    /// A schedule in UTC that skips while its last run is unfinished and catches up the last missed tick.
    #[must_use]
    pub fn new(name: &str, workflow: &str, cron: &str, params: Value) -> Self {
        let (name, workflow, cron) = (name.to_owned(), workflow.to_owned(), cron.to_owned());
        let (overlap, catchup) = (Overlap::Skip, Catchup::Last);
        Self { name, workflow, params, unique_key: None, cron, timezone: "UTC".to_owned(), overlap, catchup }
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
    /// Inserts the schedules that are not there yet; those that are stay as operators left them.
    ///
    /// # Errors
    /// An expression, time zone or workflow that is not valid: nothing was inserted. Or the database's.
    pub async fn ensure_schedules(&self, defaults: &[ScheduleDefault]) -> Result<(), ScheduleError> {
        let mut tx = self.pool.begin().await?;
        let now = now(&mut *tx).await?;
        for default in defaults {
            self.catalog.get(&default.workflow).ok_or_else(|| self.catalog.unknown(&default.workflow))?;
            let next = Cron::parse(&default.cron, &default.timezone)?.next_after(now);
            let sql = "insert into snapshots.schedule (name, workflow, params, unique_key, cron, timezone, overlap, catchup, \
                 next_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (name) do nothing";
            sqlx::query(sql)
                .bind(&default.name)
                .bind(&default.workflow)
                .bind(&default.params)
                .bind(&default.unique_key)
                .bind(&default.cron)
                .bind(&default.timezone)
                .bind(default.overlap.as_str())
                .bind(default.catchup.as_str())
                .bind(next)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

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

    /// Starts a run of the schedule now, paused or not; its ticks stay as they are.
    ///
    /// # Errors
    /// See [`ScheduleError`].
    pub async fn run_schedule(&self, name: &str, actor: &str) -> Result<RunId, ScheduleError> {
        let mut tx = self.pool.begin().await?;
        let found = locked(&mut tx, name).await?;
        let tick = Tick { schedule: name, fire_at: None };
        let run = start(&mut tx, &self.catalog, &found.request(), Some(tick)).await?;
        record(&mut tx, actor, "schedule.run", name, &json!({ "run": run })).await?;
        tx.commit().await?;
        Ok(run)
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
