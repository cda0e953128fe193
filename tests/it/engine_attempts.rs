//! What passes between an attempt and the ledger while it runs: wishes to it, and from it progress and log lines.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{
    AuditFilter, CaptureLayer, Ctx, DrainError, PauseTarget, RunState, StartRun, StepError, Workflow,
    statements::{self, Renewed, Report},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt};

use crate::engine_support::{Bench, FAST, poll};

struct World {
    begun: AtomicUsize,
    gate: Semaphore,
}

fn world() -> Arc<World> {
    Arc::new(World { begun: AtomicUsize::new(0), gate: Semaphore::new(0) })
}

/// Ends when the gate opens, and gives itself back when asked to.
async fn polite(ctx: Ctx<Arc<World>>, _: Value) -> Result<u32, StepError> {
    ctx.services().begun.fetch_add(1, Ordering::SeqCst);
    tokio::select! {
        _ = ctx.services().gate.acquire() => Ok(ctx.attempt()),
        () = ctx.stop_token().cancelled() => Err(StepError::Yield),
    }
}

/// Reports, says something, and fails once.
async fn talks(ctx: Ctx<Arc<World>>, _: Value) -> Result<u32, StepError> {
    ctx.progress(10, 100, "rows");
    tracing::info!(rows = 10, "cutting from postgres://ann:hunter2@db/chain");
    let said = ctx.blocking(|| {
        tracing::warn!("this disk is slow");
        Ok(())
    });
    said.await?;
    ctx.services().begun.fetch_add(1, Ordering::SeqCst);
    let _pass = ctx.services().gate.acquire().await.map_err(StepError::fail)?;
    ctx.progress(60, 100, "rows");
    match ctx.attempt() {
        1 => Err(StepError::retry(std::io::Error::other("no route to postgres://ann:hunter2@db/chain"))),
        attempt => Ok(attempt),
    }
}

fn workflows() -> Vec<Workflow<Arc<World>>> {
    vec![
        Workflow::named("polite", 1).step("only", polite),
        Workflow::named("talks", 1).step("only", talks).backoff(FAST),
        Workflow::named("nul", 1).step("only", nul),
        Workflow::named("nuls", 1).step("plan", nuls).each("part", |_: &Vec<String>| vec![json!("\0"); 2], nuls),
    ]
}

/// Returns, or keeps, what no `jsonb` holds: a text with NUL in it.
async fn nul(ctx: Ctx<Arc<World>>, params: Value) -> Result<Vec<String>, StepError> {
    if params["keep"] == true {
        ctx.save_state(&"\0").await?;
    }
    Ok(vec!["\0".into(); usize::from(params["return"] == true)])
}

async fn nuls(_: Ctx<Arc<World>>, _: Value) -> Result<Vec<String>, StepError> {
    Ok(vec!["fine".into()])
}

fn start(workflow: &str) -> StartRun {
    StartRun::new(workflow, json!({}))
}

#[tokio::test]
async fn a_running_step_gives_itself_back_unspent_when_its_workflow_is_paused() {
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(world());
    let run = bench.client.start(&start("polite")).await.unwrap();
    poll("the step runs", async || worker.services.begun.load(Ordering::SeqCst) == 1).await;
    let target = PauseTarget::Workflow("polite".into());
    bench.client.pause(&target, "the disk is changed", "ann").await.unwrap();
    poll("the run is paused", async || bench.client.run(run).await.unwrap().unwrap().state == RunState::Paused).await;
    bench.client.resume(&target, "ann").await.unwrap();
    worker.services.gate.add_permits(1);
    let detail = bench.finished(run).await;
    assert_eq!(detail.step("only").output, Some(json!(1)), "the pause cost no attempt");
    let outcomes: Vec<_> = detail.attempts.iter().filter_map(|attempt| attempt.outcome.as_deref()).collect();
    assert_eq!(outcomes, ["yielded", "succeeded"]);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_told_to_drain_gives_back_what_it_runs_and_takes_nothing_until_told_otherwise() {
    let bench = Bench::new(workflows).await;
    let first = bench.worker(world());
    let run = bench.client.start(&start("polite")).await.unwrap();
    poll("the step runs", async || first.services.begun.load(Ordering::SeqCst) == 1).await;
    let id: String = sqlx::query_scalar("select id from snapshots.worker").fetch_one(&bench.pool).await.unwrap();
    bench.client.drain(&id, true, "ann").await.unwrap();
    let second = bench.worker(world());
    poll("another takes the step", async || second.services.begun.load(Ordering::SeqCst) == 1).await;
    second.services.gate.add_permits(1);
    let detail = bench.finished(run).await;
    assert_eq!((detail.run.state, detail.step("only").output.clone()), (RunState::Succeeded, Some(json!(1))));
    second.stop().await;

    let run = bench.client.start(&start("polite")).await.unwrap();
    assert!(bench.claim_for(&id, Duration::from_secs(60)).await.is_none(), "the database refuses a draining worker");
    let unheard = "select count(*) from snapshots.step where state = 'ready' and doorbell is null";
    let unheard: i64 = sqlx::query_scalar(unheard).fetch_one(&bench.pool).await.unwrap();
    assert_eq!(unheard, 1, "the next sweep rings for it, so that another worker hears");
    first.services.gate.add_permits(1);
    bench.client.drain(&id, false, "ann").await.unwrap();
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    first.stop().await;
    let acts = bench.client.audit_log(&AuditFilter { subject: Some(format!("worker {id}")), ..AuditFilter::default() }, 10).await;
    let acts: Vec<_> = acts.unwrap().into_iter().map(|entry| entry.act).collect();
    assert_eq!(acts, ["worker.resume", "worker.drain"]);
    assert!(matches!(bench.client.drain("nobody", true, "ann").await, Err(DrainError::UnknownWorker { .. })));
}

#[tokio::test]
async fn an_attempt_keeps_its_log_its_progress_and_its_rate_and_no_password() {
    // For the whole process: blocking threads know no other. It prints nothing.
    let layer = CaptureLayer::new().with_filter(LevelFilter::INFO);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(world());
    let run = bench.client.start(&start("talks")).await.unwrap();
    let first = async || bench.client.detail(run).await.unwrap().unwrap().attempts.into_iter().next();
    poll("log and rate are seen while it runs", async || {
        first().await.is_some_and(|attempt| attempt.log.is_some() && attempt.progress.is_some_and(|p| p.rate == Some(0.0)))
    })
    .await;
    worker.services.gate.add_permits(2);
    let detail = bench.finished(run).await;
    let [failed, succeeded] = detail.attempts.as_slice() else { panic!("{:#?}", detail.attempts) };
    assert_eq!(failed.error.as_deref(), Some("no route to postgres://ann:***@db/chain"));
    let texts: Vec<_> = failed.log.iter().flatten().map(|line| line.text.as_str()).collect();
    let said = [
        "cutting from postgres://ann:***@db/chain rows=10",
        "this disk is slow",
        "the attempt failed error=no route to postgres://ann:***@db/chain",
    ];
    assert_eq!(texts, said);
    let progress = failed.progress.as_ref().unwrap();
    assert_eq!((progress.done, progress.total, progress.unit.as_str()), (60, 100, "rows"));
    assert!(progress.rate.unwrap() > 0.0, "50 rows since the first report");
    assert!(failed.duration_ms > 0 && succeeded.log.as_ref().is_some_and(|log| log.len() == 2));
    assert_eq!(detail.step("only").error, None);
    worker.stop().await;
}

#[tokio::test]
async fn a_renewal_carries_progress_and_log_and_brings_back_what_is_wanted() {
    let bench = Bench::new(workflows).await;
    let run = bench.client.start(&start("talks")).await.unwrap();
    let lease = bench.claim_any("hand").await.lease();
    let renew = async || statements::renew(&bench.pool, lease, Duration::from_secs(60), &Report::default()).await.unwrap();
    assert_eq!(renew().await, Renewed::Held);
    bench.client.pause(&PauseTarget::Workflow("talks".into()), "r", "ann").await.unwrap();
    assert_eq!(renew().await, Renewed::Paused);
    sqlx::query(
        "insert into snapshots.worker (id, host, pid, version, queues, workflows, draining) \
         values ('hand', 'h', 1, '0', '{}', '[]', true)",
    )
    .execute(&bench.pool)
    .await
    .unwrap();
    assert_eq!(renew().await, Renewed::Draining);
    bench.client.cancel(run, "ann").await.unwrap();
    assert_eq!(renew().await, Renewed::CancelRequested);
}

#[tokio::test]
async fn waits_double_from_attempt_to_attempt_up_to_the_cap_and_are_spread_by_a_quarter() {
    let bench = Bench::new(workflows).await;
    for (attempt, expected) in [(1, 2000), (2, 4000), (5, 32_000), (6, 60_000), (i32::MAX, 60_000)] {
        let sql =
            "select min(ms), max(ms) from (select snapshots.backoff_ms(2000, 60000, $1) as ms from generate_series(1, 200)) s";
        let (least, most): (i64, i64) = sqlx::query_as(sql).bind(attempt).fetch_one(&bench.pool).await.unwrap();
        assert!(least >= expected * 3 / 4 && most <= expected * 5 / 4 && most - least > expected / 4, "{least}..{most}");
    }
}

#[tokio::test]
async fn the_database_explains_the_five_statements_to_whoever_asks_it() {
    let bench = Bench::new(workflows).await;
    engine::migrate(&bench.pool).await.unwrap();
    let sql = "select p.proname::text from pg_proc p where p.pronamespace = 'snapshots'::regnamespace \
         and obj_description(p.oid, 'pg_proc') like '%Invariant:%' order by 1";
    let explained: Vec<String> = sqlx::query_scalar(sql).fetch_all(&bench.pool).await.unwrap();
    for statement in ["claim", "renew", "complete", "fail", "sweep"] {
        assert!(explained.iter().any(|name| name == statement), "{statement} is not among {explained:?}");
    }
}

#[tokio::test]
async fn what_the_ledger_cannot_hold_fails_its_step_at_once_with_the_reason() {
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(world());
    let cases = [("nul", json!({ "return": true })), ("nul", json!({ "keep": true })), ("nuls", json!({}))];
    for (workflow, params) in cases {
        let run = bench.client.start(&StartRun::new(workflow, params)).await.unwrap();
        let detail = bench.finished(run).await;
        assert_eq!(detail.run.state, RunState::Failed);
        let error = detail.run.error.as_deref().unwrap();
        assert!(error.contains("unsupported Unicode escape sequence"), "{error}");
        let failed: Vec<_> = detail.attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("failed")).collect();
        assert!(failed.len() == 1 && failed[0].no == 1, "no retry mends it: {failed:?}");
    }
    worker.stop().await;
}
