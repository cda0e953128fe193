//! Schedules of a real service: the nightly one is there, fires a snapshot through the same door as people do, and is the
//! operators' own from their first change on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use engine::{Catalog, Client, Overlap, RunState, Schedule, ScheduleChange};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{ServiceProcess, Site, home, run, site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);

/// A service that has its schedules on, with flags of its own.
async fn serve(site: &Site, flags: &[&str]) -> ServiceProcess {
    let mut command = site.command();
    command.env_remove("SNAPSHOTS_NO_SCHEDULES").args(["serve", "--json", "--listen", "127.0.0.1:0"]).args(flags);
    command.stdout(std::process::Stdio::piped());
    ServiceProcess::start(command).await
}

fn client(pool: &PgPool) -> Client {
    let workflows: Vec<_> = workflows::all().into_iter().map(|registered| registered.workflow).collect();
    Client::new(pool.clone(), Catalog::of(&workflows).unwrap())
}

/// As if the night had come.
async fn make_due(pool: &PgPool) -> DateTime<Utc> {
    let sql =
        "update snapshots.schedule set next_at = date_trunc('minute', now()) where name = 'nightly-snapshot' returning next_at";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Waits until the schedule has dealt with the tick.
async fn dealt_with(client: &Client, tick: DateTime<Utc>) -> Schedule {
    let nightly = async || client.schedule("nightly-snapshot").await.unwrap();
    wait_until(PATIENCE, "the tick is dealt with", async || nightly().await.last_tick_at >= Some(tick)).await;
    nightly().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_begins_a_snapshot_of_the_network_and_two_never_cut_it_at_once() {
    let site = site_with_chain(1_000).await;
    let service = serve(&site, &[]).await;
    let pool = site.database.pool().await;
    let client = client(&pool);
    let nightly = client.schedule("nightly-snapshot").await.unwrap();
    assert_eq!((nightly.cron.as_str(), nightly.timezone.as_str(), nightly.paused_at), ("0 2 * * *", "UTC", None));
    assert!(nightly.next_at.unwrap() > Utc::now());

    let tick = make_due(&pool).await;
    let fired = dealt_with(&client, tick).await;
    assert_eq!(fired.last_outcome.as_deref(), Some("fired"), "{fired:?}");
    let ended = client.wait(fired.last_run_id.unwrap()).await.unwrap();
    assert_eq!((ended.state, ended.schedule.as_deref()), (RunState::Succeeded, Some("nightly-snapshot")), "{:?}", ended.error);
    assert_eq!((ended.unique_key.as_deref(), &ended.params["network"]), (Some("mainnet"), &"mainnet".into()));
    assert_eq!(ended.fire_at, Some(tick));
    assert_eq!(service.json("/snapshots/latest").await["network"], "mainnet");
    assert!(fired.next_at.unwrap() > Utc::now(), "it waits for the next night");

    // An operator cuts one when the night comes.
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let cutting = service.start_run().await;
    sqlx::query("delete from snapshots.run where schedule is not null").execute(&pool).await.unwrap();
    let tick = make_due(&pool).await;
    wait_until(PATIENCE, "the tick is left out", async || {
        client.schedule("nightly-snapshot").await.unwrap().last_outcome.as_deref() == Some("skipped")
    })
    .await;
    let skipped = dealt_with(&client, tick).await;
    assert!(skipped.last_detail.as_ref().unwrap().contains(&cutting), "{:?}", skipped.last_detail);
    holder.rollback().await.unwrap();
    assert_eq!(service.ended(&cutting).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_on_an_empty_database_says_what_is_missing_and_starts_nothing() {
    let site = site().await;
    let service = serve(&site, &[]).await;
    let pool = site.database.pool().await;
    let client = client(&pool);
    let tick = make_due(&pool).await;
    let refused = dealt_with(&client, tick).await;
    assert_eq!((refused.last_outcome.as_deref(), refused.last_run_id), (Some("refused"), None));
    assert!(refused.last_detail.as_ref().unwrap().contains("index_progress has no row"), "{:?}", refused.last_detail);
    assert!(refused.next_at.unwrap() > tick);
    assert_eq!(service.terminate().await.code(), Some(0));

    let created = site.serve().await;
    run(site.command().args(["create", "--json"])).await.error_with(6, &["index_progress", "snapshots ingest"]);
    drop(created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_changes_or_stops_a_default_and_an_operators_change_outlives_both() {
    let site = site().await;
    let pool = site.database.pool().await;
    let client = client(&pool);
    let nightly = async || client.schedule("nightly-snapshot").await.unwrap();
    let restart = async |flags: &'static [&'static str]| {
        assert_eq!(serve(&site, flags).await.terminate().await.code(), Some(0));
        nightly().await
    };
    assert_eq!(restart(&["--schedule", "nightly-snapshot=15 4 * * *"]).await.cron, "15 4 * * *");
    let off = restart(&["--schedule", "nightly-snapshot=off"]).await;
    assert_eq!((off.paused_by.as_deref(), off.pause_reason.is_some()), (Some("configuration"), true));
    let on = restart(&[]).await;
    assert_eq!((on.paused_at, on.cron.as_str()), (None, "0 2 * * *"));
    assert!(restart(&["--no-schedules"]).await.paused_at.is_some());
    assert!(restart(&["--role", "api"]).await.paused_at.is_some(), "only schedulers write schedules");
    restart(&[]).await;

    let change = ScheduleChange { overlap: Some(Overlap::Queue), ..Default::default() };
    client.change_schedule("nightly-snapshot", &change, "ann").await.unwrap();
    client.pause_schedule("nightly-snapshot", "the bucket moves", "ann").await.unwrap();
    let kept = restart(&["--schedule", "nightly-snapshot=15 4 * * *"]).await;
    assert_eq!((kept.overlap, kept.cron.as_str(), kept.paused_by.as_deref()), (Overlap::Queue, "0 2 * * *", Some("ann")));

    for bad in ["nightly=off", "nightly-snapshot=0 2 * * mon-x", "nightly-snapshot"] {
        run(site.command().args(["serve", "--json", "--schedule", bad])).await.error(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_after_snapshots_runs_by_itself_at_its_time_and_over_its_part_of_them() {
    let (site, drills) = (site_with_chain(100).await, home());
    let mut command = site.command();
    command.env_remove("SNAPSHOTS_NO_SCHEDULES").args(["serve", "--json", "--listen", "127.0.0.1:0"]);
    command.env("SNAPSHOTS_DRILL", "sample").env("SNAPSHOTS_DRILL_DIR", drills.text()).stdout(std::process::Stdio::piped());
    let service = ServiceProcess::start(command).await;
    let listed = service.json("/schedules").await;
    let rows = listed["data"].as_array().unwrap();
    for (name, workflow, cron, params) in [
        ("nightly-scrub", "scrub", "0 4 * * 1-6", json!({ "percent": 2 })),
        ("weekly-scrub", "scrub", "0 4 * * 0", json!({ "percent": 100 })),
        ("daily-prune", "prune", "0 5 * * *", json!({})),
        ("nightly-drill", "restore_drill", "0 7 * * *", json!({})),
    ] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("there is no {name}: {listed:#}"));
        assert_eq!((&row["workflow"], &row["cron"], &row["params"]), (&json!(workflow), &json!(cron), &params), "{row:#}");
        assert!(row["timezone"] == "UTC" && row["pausedAt"].is_null(), "{row:#}");
    }
}
