//! The schedules that come with the program: put into the database at start, by every scheduler.
//! Invariant: what an operator changed of a schedule stays; only one that nobody touched follows the program and its
//! configuration.
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    client::Client,
    error::ScheduleError,
    schedule::{Catchup, Overlap, now},
    ticks::Cron,
};

/// Who pauses what the configuration switches off.
const CONFIGURATION: &str = "configuration";

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
    /// With a reason it comes paused, and is paused again at each start.
    pub off: Option<String>,
}

impl ScheduleDefault {
    /// A schedule in UTC that skips while its last run is unfinished and catches up the last missed tick.
    #[must_use]
    pub fn new(name: &str, workflow: &str, cron: &str, params: Value) -> Self {
        let (name, workflow, cron) = (name.to_owned(), workflow.to_owned(), cron.to_owned());
        let (overlap, catchup) = (Overlap::Skip, Catchup::Last);
        Self { name, workflow, params, unique_key: None, cron, timezone: "UTC".to_owned(), overlap, catchup, off: None }
    }
}

impl Client {
    /// Inserts the schedules that are not there yet and brings those up to date that no operator has changed. One that is
    /// `off` is paused; one that was paused for being off, and is not off any more, is resumed.
    ///
    /// # Errors
    /// An expression, time zone or workflow that is not valid: nothing was changed. Or the database's.
    pub async fn ensure_schedules(&self, defaults: &[ScheduleDefault]) -> Result<(), ScheduleError> {
        let mut tx = self.pool.begin().await?;
        let now = now(&mut *tx).await?;
        for default in defaults {
            self.catalog.get(&default.workflow).ok_or_else(|| self.catalog.unknown(&default.workflow))?;
            let next = Cron::parse(&default.cron, &default.timezone)?.next_after(now);
            put(&mut tx, default, next).await?;
            switch(&mut tx, default).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// `updated_at` leaves `created_at` behind with an operator's first change.
async fn put(tx: &mut PgConnection, default: &ScheduleDefault, next: Option<DateTime<Utc>>) -> sqlx::Result<()> {
    let sql = "insert into snapshots.schedule as s (name, workflow, params, unique_key, cron, timezone, overlap, catchup, next_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (name) do update set workflow = $2, params = $3, \
             unique_key = $4, cron = $5, timezone = $6, overlap = $7, catchup = $8, \
             next_at = case when (s.cron, s.timezone) = ($5, $6) then s.next_at else $9 end \
         where s.updated_at = s.created_at";
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
        .execute(tx)
        .await?;
    Ok(())
}

/// A pause of an operator's stays, and a schedule that comes back on waits for its next tick.
async fn switch(tx: &mut PgConnection, default: &ScheduleDefault) -> sqlx::Result<()> {
    let Some(reason) = &default.off else {
        let on = "update snapshots.schedule set paused_at = null, paused_by = null, pause_reason = null \
             where name = $1 and paused_by = $2 returning cron, timezone";
        let on: Option<(String, String)> =
            sqlx::query_as(on).bind(&default.name).bind(CONFIGURATION).fetch_optional(&mut *tx).await?;
        let Some((cron, timezone)) = on else { return Ok(()) };
        let now = now(&mut *tx).await?;
        let next = Cron::parse(&cron, &timezone).ok().and_then(|cron| cron.next_after(now));
        let wait = "update snapshots.schedule set next_at = $2 where name = $1";
        sqlx::query(wait).bind(&default.name).bind(next).execute(tx).await?;
        return Ok(());
    };
    let off = "update snapshots.schedule set paused_at = now(), paused_by = $2, pause_reason = $3 \
         where name = $1 and paused_at is null";
    sqlx::query(off).bind(&default.name).bind(CONFIGURATION).bind(reason).execute(tx).await?;
    Ok(())
}
