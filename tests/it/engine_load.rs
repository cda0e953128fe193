//! The engine under load when things break. Engines inside the test process: it is their steps that must fail, hang or be
//! counted, which no step of the real workflows can be told to.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{Ctx, RunDetail, RunState, StartRun, StepError, StepKind, StepState, Workflow};
use serde_json::{Value, json};

use crate::engine_support::{Bench, FAST, poll};

#[derive(Default)]
struct Seen {
    begun: AtomicUsize,
    joined: AtomicUsize,
    compressing: AtomicBool,
    enough: Arc<AtomicBool>,
}

async fn count(_: Ctx<Seen>, params: Value) -> Result<Vec<u64>, StepError> {
    Ok((0..params["n"].as_u64().unwrap_or(0)).collect())
}

async fn part(ctx: Ctx<Seen>, n: u64) -> Result<u64, StepError> {
    ctx.services().begun.fetch_add(1, Ordering::Relaxed);
    // Long enough that a killed engine has some of them in hand.
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(n)
}

async fn join(ctx: Ctx<Seen>, parts: Vec<u64>) -> Result<Vec<u64>, StepError> {
    ctx.services().joined.fetch_add(1, Ordering::Relaxed);
    Ok(parts)
}

fn fan() -> Vec<Workflow<Seen>> {
    let workflow = Workflow::named("fan", 1).step("plan", count);
    vec![workflow.each("part", |parts: &Vec<u64>| parts.clone(), part).backoff(FAST).step("join", join)]
}

/// Every child has succeeded in one attempt, its last, and the join saw each once.
fn nothing_lost_nothing_twice(detail: &RunDetail, n: u64) {
    assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    let mut successes: HashMap<engine::StepId, usize> = HashMap::new();
    for attempt in &detail.attempts {
        let outcome = attempt.outcome.as_deref().expect("every attempt has an end");
        *successes.entry(attempt.step_id).or_default() += usize::from(outcome == "succeeded");
    }
    assert!(detail.steps.iter().all(|step| step.state == StepState::Succeeded && successes[&step.id] == 1));
    let joined = detail.steps.iter().find(|step| step.name == "join").and_then(|step| step.output.clone());
    assert_eq!(joined, Some(json!((0..n).collect::<Vec<_>>())));
}

async fn troubled(ctx: Ctx<Seen>, n: u64) -> Result<u64, StepError> {
    match (n, ctx.attempt()) {
        (7, _) => Err(StepError::fail("chunk 7 is broken")),
        (n, 1) if n % 10 == 3 => Err(StepError::retry("connection reset")),
        _ => Ok(n),
    }
}

#[tokio::test]
async fn of_a_thousand_children_those_that_fail_once_recover_and_the_one_that_fails_for_good_is_named() {
    let bench = Bench::new(|| {
        let workflow = Workflow::named("troubled", 1).step("plan", count);
        vec![workflow.each("part", |parts: &Vec<u64>| parts.clone(), troubled).backoff(FAST).step("join", join)]
    })
    .await;
    let worker = bench.worker(Seen::default());
    let run = bench.client.start(&StartRun::new("troubled", json!({ "n": 1000 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Failed);
    let error = "1 of 1000 `part` steps failed; first: child 7: chunk 7 is broken";
    assert_eq!(detail.run.error.as_deref(), Some(error));
    let children: Vec<_> = detail.steps.iter().filter(|step| step.kind == StepKind::Child).collect();
    for child in &children {
        let expected = if child.index == 7 { StepState::Failed } else { StepState::Succeeded };
        assert_eq!((child.state, child.attempt), (expected, if child.index % 10 == 3 { 2 } else { 1 }), "child {}", child.index);
    }
    let outcomes = |outcome| detail.attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some(outcome)).count();
    // 999 children, the plan and the group.
    assert_eq!((outcomes("retry"), outcomes("failed"), outcomes("succeeded")), (100, 1, 1001));
    assert_eq!((detail.step("join").state, worker.services.joined.load(Ordering::Relaxed)), (StepState::Skipped, 0));
    worker.stop().await;
}

#[tokio::test]
async fn lost_and_doubled_doorbells_neither_lose_nor_double_work() {
    let mut bench = Bench::new(fan).await;
    bench.config.doorbell_lost_after = Duration::from_millis(100);
    // Every third doorbell is lost, every third rung twice.
    let sql = "create sequence snapshots.test_bells;
        create function snapshots.test_bell() returns trigger language plpgsql as $$
        declare n bigint;
        begin
            if pg_trigger_depth() > 1 then return new; end if;
            n := nextval('snapshots.test_bells');
            if n % 3 = 0 then return null; end if;
            if n % 3 = 1 then
                insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata)
                select left(new.id, 25) || case right(new.id, 1) when '0' then '1' else '0' end, new.job_type, new.job, new.status,
                    new.attempts, new.max_attempts, new.run_at, new.priority, new.metadata;
            end if;
            return new;
        end $$;
        create trigger test_bell before insert on apalis.jobs for each row execute function snapshots.test_bell()";
    sqlx::raw_sql(sql).execute(&bench.pool).await.unwrap();
    let worker = bench.worker(Seen::default());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 200 }))).await.unwrap();
    let detail = bench.finished(run).await;
    nothing_lost_nothing_twice(&detail, 200);
    assert!(detail.attempts.iter().all(|attempt| attempt.no == 1));
    assert_eq!((worker.services.begun.load(Ordering::Relaxed), worker.services.joined.load(Ordering::Relaxed)), (200, 1));
    worker.stop().await;
}

#[tokio::test]
async fn a_doorbell_that_a_dead_process_had_fetched_is_rung_again() {
    let bench = Bench::new(fan).await;
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 1 }))).await.unwrap();
    // Killed between the fetch and the claim. To apalis its pull loop lives on, so it is not apalis that mends this.
    let dead = "insert into snapshots.worker (id, host, pid, version, queues, workflows, seen_at)
            values ('dead-1', 'dead', 1, '1', '{io}', '[]', now() - interval '1 minute');
        insert into apalis.workers (id, worker_type, storage_name, last_seen) values ('dead-1/io/0/0', 'io', 'x', now() + interval '1 day');
        update apalis.jobs set status = 'Queued', lock_by = 'dead-1/io/0/0', lock_at = now()";
    sqlx::raw_sql(dead).execute(&bench.pool).await.unwrap();
    let worker = bench.worker(Seen::default());
    let detail = bench.finished(run).await;
    nothing_lost_nothing_twice(&detail, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_killed_and_restarted_on_the_same_host_again_and_again_loses_nothing() {
    let bench = Bench::new(fan).await;
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 150 }))).await.unwrap();
    let mut joined = 0;
    for _ in 0..3 {
        let worker = bench.worker(Seen::default());
        poll("it is under load", async || worker.services.begun.load(Ordering::Relaxed) > 20).await;
        joined += worker.services.joined.load(Ordering::Relaxed);
        worker.kill().await;
    }
    let last = bench.worker(Seen::default());
    let detail = bench.finished(run).await;
    nothing_lost_nothing_twice(&detail, 150);
    assert_eq!(joined + last.services.joined.load(Ordering::Relaxed), 1);
    assert!(detail.attempts.iter().any(|attempt| attempt.outcome.as_deref() == Some("lost")), "kills cost attempts");
    last.stop().await;
}

/// Compresses until it has had enough, and looks at nothing else.
async fn compress(ctx: Ctx<Seen>, _: Value) -> Result<usize, StepError> {
    ctx.services().compressing.store(true, Ordering::Relaxed);
    let enough = Arc::clone(&ctx.services().enough);
    ctx.blocking(move || {
        let text = vec![7; 1 << 20];
        let mut bytes = 0;
        while !enough.load(Ordering::Relaxed) {
            bytes += zstd::bulk::compress(&text, 19).map_err(StepError::fail)?.len();
        }
        Ok(bytes)
    })
    .await
}

#[tokio::test]
async fn a_cancelled_run_ends_while_its_step_is_still_inside_zstd() {
    let bench = Bench::new(|| vec![Workflow::named("deaf", 1).step("compress", compress).step("join", join)]).await;
    let worker = bench.worker(Seen::default());
    let run = bench.client.start(&StartRun::new("deaf", json!({}))).await.unwrap();
    poll("it compresses", async || worker.services.compressing.load(Ordering::Relaxed)).await;
    bench.client.cancel(run, "tester").await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Cancelled);
    assert_eq!(detail.attempts[0].outcome.as_deref(), Some("cancelled"));
    // Only now: the run did not wait for it.
    worker.services.enough.store(true, Ordering::Relaxed);
    worker.stop().await;
}

#[tokio::test]
async fn a_process_frozen_inside_a_transaction_holds_nobody_up_for_ever() {
    let bench = Bench::new(fan).await;
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 3 }))).await.unwrap();
    // As a process does that was stopped between two statements of one of its transactions.
    let mut frozen = bench.pool.begin().await.unwrap();
    for lock in ["lock table apalis.jobs in access exclusive mode", "select from snapshots.step for update"] {
        sqlx::query(lock).execute(&mut *frozen).await.unwrap();
    }
    // A process that starts now makes its tables ready first.
    engine::migrate(&bench.pool).await.unwrap();
    let worker = bench.worker(Seen::default());
    let detail = bench.finished(run).await;
    nothing_lost_nothing_twice(&detail, 3);
    drop(frozen);
    worker.stop().await;
}
