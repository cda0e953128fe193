//! A ledger with a million finished runs: what is done all day must not read it from end to end. Plans are not looked at
//! but what they led to: the server counts sequential scans of each table.
use std::time::Duration;

use engine::{
    Catalog, Client, Ctx, Engine, EngineConfig, Retention, RunFilter, RunState, Shutdown, StartRun, StepError, Workflow,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{database, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

async fn noop(_: Ctx<()>, _: Value) -> Result<(), StepError> {
    Ok(())
}

fn workflows() -> Vec<Workflow<()>> {
    vec![Workflow::named("nightly", 1).step("a", noop).step("b", noop)]
}

/// A million finished runs of 87 days, of which one of 1,000 failed.
const FILL: &str = include_str!("../../bench/million_runs.sql");

/// How often each of the big tables was read from end to end so far.
async fn scans(pool: &PgPool) -> Vec<(String, i64)> {
    let sql = "select relname::text, seq_scan from pg_stat_user_tables
               where schemaname = 'snapshots' and relname in ('run', 'step', 'attempt') order by relname";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

/// Closes a pool and waits until its sessions have ended, and so have counted what they did.
async fn counted(observer: &PgPool, pool: PgPool) {
    pool.close().await;
    let sql =
        "select not exists (select from pg_stat_activity where datname = current_database() and application_name = 'snapshots')";
    wait_until(PATIENCE, "the sessions have ended", async || sqlx::query_scalar(sql).fetch_one(observer).await.unwrap()).await;
}

fn filters() -> Vec<RunFilter> {
    let any = RunFilter::default;
    let recent = Some(chrono::Utc::now() - chrono::Duration::minutes(10));
    vec![
        any(),
        RunFilter { workflow: Some("scrub".into()), ..any() },
        RunFilter { states: vec![RunState::Failed], ..any() },
        RunFilter { states: vec![RunState::Cancelled, RunState::Queued], ..any() },
        RunFilter { states: vec![RunState::Failed], workflow: Some("nightly".into()), ..any() },
        RunFilter { since: recent, ..any() },
        RunFilter { until: recent, workflow: Some("export".into()), ..any() },
        RunFilter { text: Some("no such text".into()), ..any() },
        RunFilter { text: Some("disk full".into()), ..any() },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_million_finished_runs_no_claim_page_or_prune_reads_a_table_from_end_to_end() {
    let database = database().await;
    let pool = engine::control_pool(database.url(), 16).await.unwrap();
    engine::migrate(&pool).await.unwrap();
    let observer = database.pool().await;
    sqlx::raw_sql(FILL).execute(&observer).await.unwrap();
    let before = scans(&observer).await;

    let client = Client::new(pool.clone(), Catalog::of(&workflows()).unwrap());
    let engine = Engine::new(pool.clone(), (), workflows(), EngineConfig::default()).unwrap();
    let shutdown = Shutdown::default();
    let running = tokio::spawn(engine.run(shutdown.clone()));
    let run = client.start(&StartRun::new("nightly", json!({}))).await.unwrap();
    assert_eq!(client.wait(run).await.unwrap().state, RunState::Succeeded);
    assert_eq!(client.detail(run).await.unwrap().unwrap().attempts.len(), 2);
    for filter in filters() {
        // More often than a statement is planned for its arguments before it may be planned for any.
        for _ in 0..7 {
            let page = client.runs(&filter, 50).await.unwrap();
            let Some(last) = page.last() else { break };
            let after = Some(engine::RunCursor { created_at: last.created_at, id: last.id });
            client.runs(&RunFilter { after, ..filter.clone() }, 50).await.unwrap();
        }
    }
    let pruned =
        client.prune(&Retention { runs_for: Duration::from_secs(86 * 24 * 3600), ..Retention::default() }).await.unwrap();
    assert!(pruned.runs >= 1000, "{pruned:?}");
    shutdown.soft.cancel();
    running.await.unwrap().unwrap();
    counted(&observer, pool).await;
    assert_eq!(scans(&observer).await, before);
}
