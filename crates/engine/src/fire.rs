//! Firing schedules: on any number of nodes, without a leader.
//!
//! Each tick is one transaction that locks its schedule (skipping those another scheduler has), starts the run and moves
//! the schedule on. Invariant: however many schedulers, and whatever happens to them, a tick starts at most one run, and
//! a schedule that cannot fire says why instead of stopping the others.
use chrono::{DateTime, Duration, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tracing::{info, warn};

use crate::{
    audit,
    catalog::Catalog,
    client::Client,
    consequence,
    error::{StartError, chain},
    model::{Level, RunId},
    prepare::PrepareError,
    schedule::{Catchup, Overlap, SCHEDULE, Schedule, now},
    start::{StartRun, Tick, start},
    statements,
    ticks::Cron,
};

/// A tick this old was missed: schedulers look every second or so.
const MISSED_AFTER: Duration = Duration::minutes(5);

/// How many ticks of one schedule one sweep fires at most.
const TICKS: usize = 20;

/// A tick that started a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The schedule.
    pub schedule: String,
    /// The tick.
    pub at: DateTime<Utc>,
    /// The run.
    pub run: RunId,
}

impl Client {
    /// Fires what is due at `time`, by default the database's: an engine does this by itself.
    ///
    /// # Errors
    /// The database's; what was fired before stays fired.
    pub async fn fire_schedules(&self, time: Option<DateTime<Utc>>) -> sqlx::Result<Vec<Fired>> {
        fire_due(&self.pool, &self.catalog, time).await
    }
}

pub(crate) async fn fire_due(pool: &PgPool, catalog: &Catalog, time: Option<DateTime<Utc>>) -> sqlx::Result<Vec<Fired>> {
    let (workflows, _) = catalog.versions();
    let sql = format!(
        "select {SCHEDULE} from snapshots.schedule \
         where paused_at is null and next_at <= coalesce($2, now()) and workflow = any($1) order by next_at"
    );
    let due: Vec<Schedule> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&workflows).bind(time).fetch_all(pool).await?;
    let mut fired = Vec::new();
    for schedule in due {
        let wanted = Wanted { request: catalog.request_of(&schedule).await, schedule };
        let now = match time {
            Some(time) => time,
            None => now(pool).await?,
        };
        let name = &wanted.schedule.name;
        for _ in 0..TICKS {
            match fire_one(pool, catalog, &wanted, now).await {
                Ok(Step::Fired(tick)) => {
                    info!(schedule = name, run.id = %tick.run, tick = %tick.at, "a schedule fired");
                    fired.push(tick);
                }
                Ok(Step::Moved) => {}
                Ok(Step::Idle) => break,
                Err(error) => {
                    warn!(schedule = name, error = chain(&error), "cannot fire the schedule, trying again");
                    break;
                }
            }
        }
    }
    Ok(fired)
}

/// A due schedule as it was when its run was prepared.
struct Wanted {
    schedule: Schedule,
    request: Result<StartRun, PrepareError>,
}

/// What looking at a due schedule came to.
enum Step {
    Fired(Fired),
    /// The tick is dealt with, another may be due.
    Moved,
    /// Nothing (more) to do now.
    Idle,
}

/// What to write about a tick.
struct Note {
    tick: DateTime<Utc>,
    outcome: &'static str,
    detail: Option<String>,
    run: Option<RunId>,
}

async fn fire_one(pool: &PgPool, catalog: &Catalog, wanted: &Wanted, now: DateTime<Utc>) -> sqlx::Result<Step> {
    let name = wanted.schedule.name.as_str();
    let mut tx = pool.begin().await?;
    let sql = format!(
        "select {SCHEDULE} from snapshots.schedule where name = $1 and paused_at is null and next_at <= $2 \
         for update skip locked"
    );
    let found: Option<Schedule> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(name).bind(now).fetch_optional(&mut *tx).await?;
    let Some((schedule, due)) = found.and_then(|found| found.next_at.map(|due| (found, due))) else {
        return Ok(Step::Idle);
    };
    // An operator changed it since: what was prepared is not what it wants any more. The next look is soon.
    if !schedule.wants_the_same(&wanted.schedule) {
        return Ok(Step::Idle);
    }
    let cron = match Cron::parse(&schedule.cron, &schedule.timezone) {
        Ok(cron) => cron,
        Err(error) => {
            let note = Note { tick: due, outcome: "refused", detail: Some(error.to_string()), run: None };
            write(&mut tx, name, None, &note).await?;
            tx.commit().await?;
            return Ok(Step::Idle);
        }
    };
    let note = match choose(&schedule, &cron, due, now) {
        Some(tick) => deal_with(&mut tx, catalog, (&schedule, &wanted.request), tick).await?,
        None => {
            let detail = format!("no scheduler was there for it; found at {now}");
            Note { tick: cron.latest_at(now).unwrap_or(due), outcome: "missed", detail: Some(detail), run: None }
        }
    };
    if note.run.is_none() && schedule.last_outcome.as_deref() != Some(note.outcome) {
        warn!(schedule = name, tick = %note.tick, outcome = note.outcome, detail = note.detail, "a schedule did not fire");
    }
    let waiting = note.outcome == "waiting";
    let next = if waiting { Some(note.tick) } else { cron.next_after(note.tick) };
    write(&mut tx, name, next, &note).await?;
    tx.commit().await?;
    Ok(match note.run {
        Some(run) => Step::Fired(Fired { schedule: name.to_owned(), at: note.tick, run }),
        None if waiting => Step::Idle,
        None => Step::Moved,
    })
}

/// The tick to deal with, by the catch-up policy; none if all that are due were missed.
fn choose(schedule: &Schedule, cron: &Cron, due: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let was_there = schedule.last_outcome.as_deref() == Some("waiting") && schedule.last_tick_at == Some(due);
    if was_there || schedule.catchup == Catchup::All {
        return Some(due);
    }
    let latest = cron.latest_at(now).unwrap_or(due).max(due);
    (schedule.catchup == Catchup::Last || now - latest <= MISSED_AFTER).then_some(latest)
}

async fn deal_with(
    tx: &mut PgConnection,
    catalog: &Catalog,
    (schedule, request): (&Schedule, &Result<StartRun, PrepareError>),
    tick: DateTime<Utc>,
) -> sqlx::Result<Note> {
    let note = |outcome, detail, run| Note { tick, outcome, detail, run };
    let sql = "select id from snapshots.run where schedule = $1 and fire_at = $2";
    let twin: Option<RunId> = sqlx::query_scalar(sql).bind(&schedule.name).bind(tick).fetch_optional(&mut *tx).await?;
    if let Some(twin) = twin {
        return Ok(note("duplicate", Some(format!("this tick has fired before, as run {twin}")), None));
    }
    let sql = "select id from snapshots.run where schedule = $1 and state in ('queued', 'running', 'retrying', 'paused')";
    let unfinished: Vec<RunId> = sqlx::query_scalar(sql).bind(&schedule.name).fetch_all(&mut *tx).await?;
    if let Some(first) = unfinished.first() {
        match schedule.overlap {
            Overlap::Skip => return Ok(note("skipped", Some(format!("run {first} is not finished")), None)),
            Overlap::Queue => return Ok(note("waiting", Some(format!("run {first} is not finished")), None)),
            Overlap::CancelOld => {
                for run in &unfinished {
                    cancel(tx, schedule, *run).await?;
                }
                // One whose step still runs ends within a third of the lease: this tick is looked at again.
                let sql = "select count(*) from snapshots.run where id = any($1) and done_at is null";
                if sqlx::query_scalar::<_, i64>(sql).bind(&unfinished).fetch_one(&mut *tx).await? > 0 {
                    return Ok(note("waiting", Some(format!("run {first} was cancelled and has not ended")), None));
                }
            }
        }
    }
    let request = match request {
        Ok(request) => request,
        Err(PrepareError::Unavailable(why)) => return Ok(note("waiting", Some(chain(&**why)), None)),
        Err(PrepareError::Refused(why)) => return Ok(note("refused", Some(chain(&**why)), None)),
    };
    let origin = Tick { schedule: &schedule.name, fire_at: Some(tick) };
    match start(tx, catalog, request, Some(origin)).await {
        Ok(run) => Ok(note("fired", None, Some(run))),
        Err(StartError::AlreadyRunning { run }) => {
            let outcome = if schedule.overlap == Overlap::Skip { "skipped" } else { "waiting" };
            Ok(note(outcome, Some(format!("run {run}, which has the same key, is not finished")), None))
        }
        Err(StartError::Database(error)) => Err(error),
        Err(error) => Ok(note("refused", Some(error.to_string()), None)),
    }
}

async fn cancel(tx: &mut PgConnection, schedule: &Schedule, run: RunId) -> sqlx::Result<()> {
    let sql = "select cancel_requested_at is not null from snapshots.run where id = $1 for update";
    if !sqlx::query_scalar::<_, bool>(sql).bind(run).fetch_one(&mut *tx).await? {
        let actor = format!("schedule {}", schedule.name);
        audit::record(&mut *tx, &actor, ("run.cancel", &run.to_string()), &json!({})).await?;
        consequence::log(&mut *tx, (run, None), Level::Info, "run.cancel", &json!({ "actor": actor })).await?;
    }
    statements::cancel_in(tx, run).await
}

async fn write(tx: &mut PgConnection, name: &str, next: Option<DateTime<Utc>>, note: &Note) -> sqlx::Result<()> {
    let sql = "update snapshots.schedule set next_at = $2, last_tick_at = $3, last_outcome = $4, last_detail = $5, \
         last_run_id = coalesce($6, last_run_id) where name = $1";
    sqlx::query(sql)
        .bind(name)
        .bind(next)
        .bind(note.tick)
        .bind(note.outcome)
        .bind(&note.detail)
        .bind(note.run)
        .execute(tx)
        .await?;
    Ok(())
}

/// **Sweep, clock.** A schedule that waits for a tick beyond its next one was moved on by a clock that ran ahead: it is
/// set back. A tick that fired in that future does not fire again, since its run is there.
///
/// # Errors
/// The database's.
pub(crate) async fn set_back(pool: &PgPool) -> sqlx::Result<()> {
    let sql = format!("select {SCHEDULE} from snapshots.schedule where next_at > now() + interval '1 minute'");
    let waiting: Vec<Schedule> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    let now = now(pool).await?;
    for schedule in waiting {
        let Ok(cron) = Cron::parse(&schedule.cron, &schedule.timezone) else { continue };
        let next = cron.next_after(now);
        if next < schedule.next_at {
            warn!(schedule = schedule.name, ?next, "a schedule waited for a time too far ahead; was a clock set back?");
            let sql = "update snapshots.schedule set next_at = $3 where name = $1 and next_at = $2";
            sqlx::query(sql).bind(&schedule.name).bind(schedule.next_at).bind(next).execute(pool).await?;
        }
    }
    Ok(())
}
