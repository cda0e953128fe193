//! Schedules against a real Postgres, with a clock that the test moves.
use chrono::{DateTime, Duration, Utc};
use engine::{
    AuditFilter, Catchup, Client, Cron, CronError, Ctx, Overlap, RunFilter, RunId, RunState, ScheduleChange, ScheduleDefault,
    ScheduleError, StartError, StepError, Workflow,
    statements::{self, Ending, Report},
};
use serde_json::{Value, json};

use crate::engine_support::{Bench, poll};

async fn noop(_: Ctx<()>, _: Value) -> Result<(), StepError> {
    Ok(())
}

fn workflows() -> Vec<Workflow<()>> {
    vec![Workflow::named("nightly", 1).step("only", noop)]
}

fn minutely() -> ScheduleDefault {
    ScheduleDefault::new("minutely", "nightly", "* * * * *", json!({ "deep": true }))
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

const NOON: &str = "2027-05-01T12:00:00Z";

/// A bench with one schedule whose next tick is at `next`.
async fn scheduled(default: ScheduleDefault, next: &str) -> Bench<()> {
    let bench = Bench::new(workflows).await;
    bench.client.ensure_schedules(&[default]).await.unwrap();
    let sql = "update snapshots.schedule set next_at = $1";
    sqlx::query(sql).bind(time(next)).execute(&bench.pool).await.unwrap();
    bench
}

/// Fires what is due at `now`; the ticks it fired.
async fn fire(client: &Client, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    client.fire_schedules(Some(now)).await.unwrap().iter().map(|fired| fired.at).collect()
}

async fn finish_all(bench: &Bench<()>) {
    let sql = "with s as (update snapshots.step set state = 'succeeded', done_at = now() where state <> 'succeeded') \
         update snapshots.run set state = 'succeeded', done_at = now() where done_at is null";
    sqlx::query(sql).execute(&bench.pool).await.unwrap();
}

async fn ticks(bench: &Bench<()>) -> Vec<DateTime<Utc>> {
    let sql = "select fire_at from snapshots.run where fire_at is not null order by fire_at";
    sqlx::query_scalar(sql).fetch_all(&bench.pool).await.unwrap()
}

async fn outcome(bench: &Bench<()>) -> String {
    bench.client.schedule("minutely").await.unwrap().last_outcome.unwrap()
}

#[tokio::test]
async fn two_schedulers_fire_each_of_a_hundred_ticks_once_though_their_clocks_differ_and_step() {
    let bench = scheduled(minutely(), NOON).await;
    let (one, two) = (bench.client.clone(), bench.client.clone());
    let mut fired = 0;
    for minute in 0..100 {
        let now = time(NOON) + Duration::minutes(minute);
        let stepped = if minute % 10 == 5 { now - Duration::minutes(30) } else { now + Duration::seconds(20) };
        let (a, b) = tokio::join!(fire(&one, now), fire(&two, stepped));
        fired += a.len() + b.len();
        finish_all(&bench).await;
    }
    let expected = Cron::parse("* * * * *", "UTC").unwrap().next_fires(time(NOON) - Duration::seconds(1), 100);
    assert_eq!(ticks(&bench).await, expected);
    assert_eq!(fired, 100);
}

#[tokio::test]
async fn an_engine_fires_what_is_due_and_runs_it() {
    let bench = scheduled(minutely(), "2026-01-01T00:00:00Z").await;
    let worker = bench.worker(());
    let last_run = async || bench.client.schedule("minutely").await.unwrap().last_run_id;
    poll("the schedule has fired", async || last_run().await.is_some()).await;
    let detail = bench.finished(last_run().await.unwrap()).await;
    assert_eq!((detail.run.state, detail.run.schedule.as_deref()), (RunState::Succeeded, Some("minutely")));
    assert_eq!(detail.run.params, json!({ "deep": true }));
    worker.stop().await;
}

#[tokio::test]
async fn an_overlapping_tick_is_skipped_by_default_and_the_schedule_says_why() {
    let bench = scheduled(minutely(), NOON).await;
    assert_eq!(fire(&bench.client, time(NOON)).await.len(), 1);
    assert!(fire(&bench.client, time(NOON) + Duration::minutes(1)).await.is_empty());
    let schedule = bench.client.schedule("minutely").await.unwrap();
    assert_eq!(schedule.last_outcome.as_deref(), Some("skipped"));
    assert!(schedule.last_detail.unwrap().ends_with("is not finished"));
    finish_all(&bench).await;
    assert!(fire(&bench.client, time(NOON) + Duration::minutes(1)).await.is_empty(), "a skipped tick stays skipped");
    assert_eq!(fire(&bench.client, time(NOON) + Duration::minutes(2)).await.len(), 1);
}

#[tokio::test]
async fn an_overlapping_tick_may_wait_its_turn_however_long() {
    let bench = scheduled(ScheduleDefault { overlap: Overlap::Queue, catchup: Catchup::None, ..minutely() }, NOON).await;
    fire(&bench.client, time(NOON)).await;
    let second = time(NOON) + Duration::minutes(1);
    assert!(fire(&bench.client, second).await.is_empty());
    assert_eq!(outcome(&bench).await, "waiting");
    finish_all(&bench).await;
    assert_eq!(fire(&bench.client, second + Duration::minutes(30)).await, [second], "it was seen in time, so it is not missed");
}

#[tokio::test]
async fn an_overlapping_tick_may_cancel_the_old_run() {
    let bench = scheduled(ScheduleDefault { overlap: Overlap::CancelOld, ..minutely() }, NOON).await;
    fire(&bench.client, time(NOON)).await;
    let claimed = bench.claim_any("w").await;
    let second = time(NOON) + Duration::minutes(1);
    assert!(fire(&bench.client, second).await.is_empty(), "the old run's step still runs");
    assert_eq!(outcome(&bench).await, "waiting");
    let cut = Ending::Failed { error: "was cancelled".into() };
    statements::end(&bench.pool, claimed.lease(), &cut, &Report::default()).await.unwrap();
    assert_eq!(fire(&bench.client, second).await, [second]);
    let old: RunId = claimed.run_id;
    assert_eq!(bench.client.run(old).await.unwrap().unwrap().state, RunState::Cancelled);
    let log = bench.client.audit_log(&AuditFilter { subject: Some(old.to_string()), ..Default::default() }, 9).await.unwrap();
    assert_eq!((log.len(), log[0].actor.as_str()), (1, "schedule minutely"));
}

#[tokio::test]
async fn missed_ticks_are_caught_up_as_the_policy_says() {
    let late = time(NOON) + Duration::minutes(7) + Duration::seconds(5);
    let all: Vec<_> = (0..=7).map(|minute| time(NOON) + Duration::minutes(minute)).collect();
    let hourly = |catchup| ScheduleDefault { cron: "0 * * * *".into(), catchup, ..minutely() };
    let cases = [
        (ScheduleDefault { catchup: Catchup::Last, ..minutely() }, vec![all[7]]),
        (ScheduleDefault { catchup: Catchup::All, ..minutely() }, all.clone()),
        (ScheduleDefault { catchup: Catchup::None, ..minutely() }, vec![all[7]]),
        (hourly(Catchup::None), vec![]),
        (hourly(Catchup::Last), vec![all[0]]),
    ];
    for (default, expected) in cases {
        let what = format!("{default:?}");
        let bench = scheduled(ScheduleDefault { overlap: Overlap::Queue, ..default }, NOON).await;
        for _ in 0..10 {
            fire(&bench.client, late).await;
            finish_all(&bench).await;
        }
        assert_eq!(ticks(&bench).await, expected, "{what}");
        assert!(bench.client.schedule("minutely").await.unwrap().next_at.unwrap() > late);
    }
}

#[tokio::test]
async fn on_the_days_clocks_change_each_night_fires_once() {
    for (zone, begin) in [("Europe/Zurich", "2027-03-27T12:00:00Z"), ("America/New_York", "2027-11-06T12:00:00Z")] {
        let cron = Cron::parse("30 2 * * *", zone).unwrap();
        let first = cron.next_after(time(begin)).unwrap().to_rfc3339();
        let default = ScheduleDefault { cron: "30 2 * * *".into(), timezone: zone.into(), ..minutely() };
        let bench = scheduled(default, &first).await;
        for quarter in 0..288 {
            fire(&bench.client, time(begin) + Duration::minutes(15 * quarter)).await;
            finish_all(&bench).await;
        }
        let fired = ticks(&bench).await;
        assert_eq!(fired, cron.next_fires(time(begin), 3), "{zone}: three nights, three runs");
    }
}

#[tokio::test]
async fn a_schedule_moved_on_by_a_clock_that_ran_ahead_is_set_back() {
    let bench = scheduled(minutely(), "2099-01-01T00:00:00Z").await;
    let worker = bench.worker(());
    poll("it waits for a near tick again", async || {
        bench.client.schedule("minutely").await.unwrap().next_at.unwrap() < Utc::now() + Duration::hours(1)
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn defaults_are_inserted_once_and_operators_changes_are_kept() {
    let bench = scheduled(minutely(), NOON).await;
    let change = ScheduleChange { cron: Some("0 3 * * 7".into()), overlap: Some(Overlap::CancelOld), ..Default::default() };
    let changed = bench.client.change_schedule("minutely", &change, "ann").await.unwrap();
    assert_eq!((changed.cron.as_str(), changed.overlap, changed.catchup), ("0 3 * * 7", Overlap::CancelOld, Catchup::Last));
    bench.client.ensure_schedules(&[minutely()]).await.unwrap();
    let schedules = bench.client.schedules().await.unwrap();
    assert_eq!((schedules.len(), schedules[0].cron.as_str()), (1, "0 3 * * 7"));
    assert_eq!(schedules[0].next_fires(time(NOON), 1).unwrap(), [time("2027-05-02T03:00:00Z")]);
    let audit = bench.client.audit_log(&AuditFilter::default(), 9).await.unwrap();
    assert_eq!(audit[0].details, json!({ "change": { "cron": "0 3 * * 7", "overlap": "cancel_old" } }));
}

#[tokio::test]
async fn a_paused_schedule_fires_only_by_hand_and_does_not_catch_up() {
    let bench = scheduled(minutely(), NOON).await;
    bench.client.pause_schedule("minutely", "holidays", "ann").await.unwrap();
    assert!(matches!(bench.client.pause_schedule("minutely", "x", "bob").await, Err(ScheduleError::AlreadyPaused { .. })));
    assert!(fire(&bench.client, time(NOON) + Duration::hours(1)).await.is_empty());
    let run = bench.client.run_schedule("minutely", None, "bob").await.unwrap().run;
    let found = bench.client.run(run).await.unwrap().unwrap();
    assert_eq!((found.schedule.as_deref(), found.fire_at), (Some("minutely"), None));
    let resumed = bench.client.resume_schedule("minutely", "ann").await.unwrap();
    assert!(resumed.next_at.unwrap() > resumed.created_at);
    assert!(resumed.next_at.unwrap() < time(NOON), "it waits for the next tick by the database's clock");
    assert!(matches!(bench.client.resume_schedule("minutely", "ann").await, Err(ScheduleError::NotPaused { .. })));
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_refused_and_changes_nothing() {
    let bench = scheduled(minutely(), NOON).await;
    let change = async |change: ScheduleChange| bench.client.change_schedule("minutely", &change, "ann").await.unwrap_err();
    let cron = change(ScheduleChange { cron: Some("0 2 1 * 1".into()), ..Default::default() }).await;
    assert!(matches!(cron, ScheduleError::Cron(CronError::TwoDays { .. })), "{cron}");
    let zone = change(ScheduleChange { timezone: Some("Nowhere".into()), ..Default::default() }).await;
    assert!(matches!(zone, ScheduleError::Cron(CronError::UnknownTimezone { .. })), "{zone}");
    let priority = change(ScheduleChange { priority: Some(-1), ..Default::default() }).await;
    assert!(matches!(priority, ScheduleError::Start(StartError::BadPriority { .. })), "{priority}");
    assert!(matches!(bench.client.run_schedule("weekly", None, "ann").await, Err(ScheduleError::Unknown { .. })));
    let stranger = ScheduleDefault { workflow: "nothing".into(), name: "other".into(), ..minutely() };
    let refused = bench.client.ensure_schedules(&[stranger]).await;
    assert!(matches!(refused, Err(ScheduleError::Start(StartError::UnknownWorkflow { .. }))));
    assert_eq!(bench.client.schedules().await.unwrap().len(), 1);
    assert!(bench.client.audit_log(&AuditFilter::default(), 9).await.unwrap().is_empty());
    assert!(bench.client.runs(&RunFilter::default(), 9).await.unwrap().is_empty());
}
