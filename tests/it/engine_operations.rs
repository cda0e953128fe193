//! What operators do to runs: retry, cancel, pause, act on all that match; and that the audit log knows who did it.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::{
    AuditFilter, CancelError, Ctx, PauseError, PauseTarget, Queue, RetryError, RetryFrom, RunFilter, RunState, StartError,
    StartRun, StepError, StepState, Workflow,
    statements::{self, Report},
};
use serde_json::{Value, json};

use crate::engine_support::{Bench, FAST, poll};

/// A world that is broken until mended.
#[derive(Default)]
struct World {
    mended: AtomicBool,
    plans: AtomicUsize,
    parts: AtomicUsize,
}

async fn plan(ctx: Ctx<World>, params: Value) -> Result<Vec<u64>, StepError> {
    ctx.services().plans.fetch_add(1, Ordering::Relaxed);
    Ok((0..params["n"].as_u64().unwrap_or(0)).collect())
}

async fn part(ctx: Ctx<World>, n: u64) -> Result<u64, StepError> {
    ctx.services().parts.fetch_add(1, Ordering::Relaxed);
    if n % 10 == 7 && !ctx.services().mended.load(Ordering::Relaxed) {
        return Err(StepError::retry("the disk is full"));
    }
    Ok(n)
}

async fn join(_: Ctx<World>, parts: Vec<u64>) -> Result<u64, StepError> {
    Ok(parts.iter().sum())
}

fn workflows() -> Vec<Workflow<World>> {
    vec![
        Workflow::named("fan", 1)
            .step("plan", plan)
            .each("part", |items: &Vec<u64>| items.clone(), part)
            .attempts(2)
            .backoff(FAST)
            .step("join", join)
            .queue(Queue::Cpu),
        Workflow::named("other", 1).step("plan", plan),
    ]
}

fn fan(n: u64) -> StartRun {
    StartRun::new("fan", json!({ "n": n }))
}

#[tokio::test]
async fn a_retry_from_the_failed_step_does_only_what_failed_and_keeps_every_attempt() {
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(World::default());
    let run = bench.client.run_now(&fan(30).unique("net"), "ann").await.unwrap();
    let failed = bench.finished(run).await;
    assert_eq!(failed.run.state, RunState::Failed);
    assert_eq!(worker.services.parts.load(Ordering::Relaxed), 33, "three of thirty were tried twice");
    worker.services.mended.store(true, Ordering::Relaxed);
    assert_eq!(bench.client.retry(run, RetryFrom::FailedStep, "bob").await.unwrap(), run);
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    assert_eq!(detail.run.error, None);
    assert_eq!(detail.step("join").output, Some(json!(435)));
    assert_eq!(worker.services.plans.load(Ordering::Relaxed), 1);
    assert_eq!(worker.services.parts.load(Ordering::Relaxed), 36);
    let seven = detail.steps.iter().find(|step| step.index == 7).unwrap().id;
    let history: Vec<_> = detail.attempts.iter().filter(|attempt| attempt.step_id == seven).collect();
    let history: Vec<_> = history.iter().map(|attempt| (attempt.no, attempt.outcome.as_deref().unwrap())).collect();
    assert_eq!(history, [(1, "retry"), (2, "failed"), (3, "succeeded")]);
    let log = bench.client.audit_log(&AuditFilter { subject: Some(run.to_string()), ..Default::default() }, 10).await.unwrap();
    let acts: Vec<_> = log.iter().map(|entry| (entry.actor.as_str(), entry.act.as_str())).collect();
    assert_eq!(acts, [("bob", "run.retry"), ("ann", "run.start")]);
    let events = bench.client.events(run, 0, 1000).await.unwrap();
    let retried = events.iter().find(|event| event.kind == "run.retry").unwrap();
    assert_eq!(retried.data["error"], json!(failed.run.error), "why it failed before stays in its log");
    worker.stop().await;
}

#[tokio::test]
async fn a_retry_from_the_start_is_a_new_run_with_the_old_one_as_its_parent() {
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(World::default());
    let run = bench.client.start(&fan(8)).await.unwrap();
    bench.finished(run).await;
    worker.services.mended.store(true, Ordering::Relaxed);
    let second = bench.client.retry(run, RetryFrom::Start, "bob").await.unwrap();
    let detail = bench.finished(second).await;
    assert_eq!((detail.run.state, detail.run.parent_run_id), (RunState::Succeeded, Some(run)));
    assert_eq!(bench.client.run(run).await.unwrap().unwrap().state, RunState::Failed);
    worker.stop().await;
}

#[tokio::test]
async fn a_retry_that_makes_no_sense_is_refused_and_changes_nothing() {
    let bench = Bench::new(workflows).await;
    let retry = |run, from| bench.client.retry(run, from, "bob");
    let run = bench.client.start(&fan(0).unique("net")).await.unwrap();
    let running = retry(run, RetryFrom::Start).await;
    assert!(matches!(running, Err(RetryError::NotFinished { state: RunState::Queued, .. })));
    let nobody = retry(engine::RunId(uuid::Uuid::now_v7()), RetryFrom::Start).await;
    assert!(matches!(nobody, Err(RetryError::UnknownRun { .. })));
    bench.client.cancel(run, "ann").await.unwrap();
    let newer = bench.client.start(&fan(0).unique("net")).await.unwrap();
    for from in [RetryFrom::FailedStep, RetryFrom::Start] {
        match retry(run, from).await {
            Err(RetryError::Start(StartError::AlreadyRunning { run })) => assert_eq!(run, newer),
            other => panic!("{other:?}"),
        }
    }
    let worker = bench.worker(World::default());
    bench.finished(newer).await;
    assert!(matches!(retry(newer, RetryFrom::FailedStep).await, Err(RetryError::NothingFailed { .. })));
    sqlx::query("update snapshots.run set version = 9").execute(&bench.pool).await.unwrap();
    assert!(matches!(retry(run, RetryFrom::FailedStep).await, Err(RetryError::OtherVersion { version: 9, .. })));
    assert_eq!(bench.client.run(run).await.unwrap().unwrap().state, RunState::Cancelled);
    let audit = bench.client.audit_log(&AuditFilter { actor: Some("bob".into()), ..Default::default() }, 9).await.unwrap();
    assert!(audit.is_empty(), "{audit:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_cancelled_run_goes_on_where_it_was_stopped() {
    let bench = Bench::new(workflows).await;
    let run = bench.client.start(&fan(5)).await.unwrap();
    let plan = bench.claim_any("w").await;
    statements::complete(&bench.pool, plan.lease(), &json!([0, 1, 2]), &Report::default()).await.unwrap();
    let group = bench.claim_any("w").await;
    let items = [json!(0), json!(1), json!(2)];
    statements::plan(&bench.pool, group.lease(), &items, &Report::default()).await.unwrap();
    let child = bench.claim_any("w").await;
    bench.client.cancel(run, "ann").await.unwrap();
    statements::complete(&bench.pool, child.lease(), &json!(0), &Report::default()).await.unwrap();
    assert_eq!(bench.finished(run).await.run.state, RunState::Cancelled);
    assert!(matches!(bench.client.cancel(run, "ann").await, Err(CancelError::Finished { .. })));
    bench.client.retry(run, RetryFrom::FailedStep, "bob").await.unwrap();
    let worker = bench.worker(World::default());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    assert_eq!(detail.step("join").output, Some(json!(3)));
    assert_eq!(worker.services.parts.load(Ordering::Relaxed), 2, "one of three had been done before the cancellation");
    worker.stop().await;
}

#[tokio::test]
async fn a_paused_workflow_is_not_claimed_and_says_so_until_it_is_resumed() {
    let bench = Bench::new(workflows).await;
    let target = PauseTarget::Workflow("other".into());
    let before = bench.client.start(&StartRun::new("other", json!({}))).await.unwrap();
    bench.client.pause(&target, "disk is being changed", "ann").await.unwrap();
    let state = async |run| bench.client.run(run).await.unwrap().unwrap().state;
    assert_eq!(state(before).await, RunState::Paused);
    let worker = bench.worker(World::default());
    let later = bench.client.start(&StartRun::new("other", json!({}))).await.unwrap();
    poll("the sweep notes the pause", async || state(later).await == RunState::Paused).await;
    let not_paused = bench.client.start(&fan(3)).await.unwrap();
    bench.finished(not_paused).await;
    assert_eq!(worker.services.plans.load(Ordering::Relaxed), 1);
    match bench.client.pause(&target, "again", "bob").await {
        Err(PauseError::AlreadyPaused { reason, .. }) => assert_eq!(reason, "disk is being changed"),
        other => panic!("{other:?}"),
    }
    let pauses = bench.client.pauses().await.unwrap();
    assert_eq!((pauses.len(), pauses[0].actor.as_str()), (1, "ann"));
    bench.client.resume(&target, "bob").await.unwrap();
    for run in [before, later] {
        assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    }
    assert!(matches!(bench.client.resume(&target, "bob").await, Err(PauseError::NotPaused { .. })));
    let unknown = PauseTarget::Workflow("nothing".into());
    assert!(matches!(bench.client.pause(&unknown, "r", "bob").await, Err(PauseError::UnknownWorkflow { .. })));
    worker.stop().await;
}

#[tokio::test]
async fn a_paused_queue_holds_its_steps_and_nothing_else_and_a_run_that_waits_for_it_says_so() {
    let bench = Bench::new(workflows).await;
    bench.client.pause(&PauseTarget::Queue(Queue::Cpu), "too hot", "ann").await.unwrap();
    let worker = bench.worker(World::default());
    let run = bench.client.start(&fan(3)).await.unwrap();
    let join = async || {
        let detail = bench.client.detail(run).await.unwrap().unwrap();
        detail.steps.iter().find(|step| step.name == "join").unwrap().state
    };
    poll("all but the join is done", async || join().await == StepState::Ready).await;
    let mut sweeps = 0;
    let mut seen: Option<chrono::DateTime<chrono::Utc>> = None;
    poll("a few sweeps have passed", async || {
        let now = sqlx::query_scalar("select seen_at from snapshots.worker").fetch_one(&bench.pool).await.unwrap();
        sweeps += usize::from(seen.replace(now) != seen);
        sweeps > 3
    })
    .await;
    assert_eq!(join().await, StepState::Ready);
    assert_eq!(bench.client.run(run).await.unwrap().unwrap().state, RunState::Paused);
    bench.client.resume(&PauseTarget::Queue(Queue::Cpu), "ann").await.unwrap();
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn all_runs_that_match_are_retried_page_by_page_and_none_twice() {
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(World::default());
    for _ in 0..7 {
        let run = bench.client.start(&fan(8)).await.unwrap();
        bench.finished(run).await;
    }
    bench.finished(bench.client.start(&fan(2)).await.unwrap()).await;
    worker.services.mended.store(true, Ordering::Relaxed);
    let filter = RunFilter { states: vec![RunState::Failed], text: Some("DISK IS FULL".into()), ..RunFilter::default() };
    let (mut after, mut retried) = (None, Vec::new());
    loop {
        let page = bench.client.matching(&filter, after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(*last);
        for found in &page {
            retried.push(bench.client.retry(found.id, RetryFrom::FailedStep, "bob").await.unwrap());
        }
    }
    assert_eq!(retried.len(), 7);
    for run in retried {
        assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    }
    worker.stop().await;
}
