//! Steps that are claimed and completed together: all that holds of one holds of many.
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{
    Ctx, LimitTarget, PauseTarget, Queue, RunState, StartRun, StepError, StepState, Workflow,
    statements::{self, Finished, Report, Written},
};
use serde_json::{Value, json};

use crate::engine_support::{Bench, poll};

#[derive(Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
    joined: AtomicUsize,
}

type World = Arc<Seen>;

async fn plan(_: Ctx<World>, params: Value) -> Result<Vec<u64>, StepError> {
    Ok((0..params["n"].as_u64().unwrap_or(0)).collect())
}

async fn part(ctx: Ctx<World>, n: u64) -> Result<Value, StepError> {
    let seen = ctx.services();
    seen.begun.fetch_add(1, Ordering::SeqCst);
    seen.most.fetch_max(seen.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    tokio::task::yield_now().await;
    seen.now.fetch_sub(1, Ordering::SeqCst);
    // One in two hundred returns what the ledger cannot hold.
    let odd = ctx.params::<Value>()?["odd"] == true && n % 200 == 7;
    Ok(if odd { json!("\0") } else { json!(n) })
}

async fn join(ctx: Ctx<World>, parts: Vec<u64>) -> Result<Vec<u64>, StepError> {
    ctx.services().joined.fetch_add(1, Ordering::SeqCst);
    Ok(parts)
}

fn fan() -> Vec<Workflow<World>> {
    let fan = |name| {
        let workflow = Workflow::named(name, 1).step("plan", plan).queue(Queue::Control);
        workflow.each("part", |parts: &Vec<u64>| parts.clone(), part).step("join", join).queue(Queue::Control)
    };
    vec![fan("fan"), fan("other")]
}

async fn bench() -> Bench<World> {
    let mut bench = Bench::new(fan).await;
    bench.config.claims = HashMap::from([(Queue::Io, 16)]);
    bench.config.io_slots = 16;
    bench
}

fn of(n: u64) -> StartRun {
    StartRun::new("fan", json!({ "n": n }))
}

#[tokio::test]
async fn two_workers_that_claim_together_lose_nothing_and_do_nothing_twice() {
    let bench = bench().await;
    let seen = World::default();
    let (one, two) = (bench.worker(Arc::clone(&seen)), bench.worker(Arc::clone(&seen)));
    let runs = [bench.client.start(&of(400)).await.unwrap(), bench.client.start(&of(100)).await.unwrap()];
    for (run, n) in runs.into_iter().zip([400, 100]) {
        let detail = bench.finished(run).await;
        assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
        assert_eq!(detail.step("join").output, Some(json!((0..n).collect::<Vec<u64>>())));
        let (steps, attempts) = (detail.steps.len(), &detail.attempts);
        let tried: HashSet<_> = attempts.iter().map(|attempt| attempt.step_id).collect();
        assert_eq!((attempts.len(), tried.len()), (steps, steps), "each step in one attempt");
    }
    assert_eq!((seen.begun.load(Ordering::SeqCst), seen.joined.load(Ordering::SeqCst)), (500, 2));
    one.stop().await;
    two.stop().await;
    let bells = "select count(*) from apalis.jobs where status = 'Pending'";
    assert_eq!(sqlx::query_scalar::<_, i64>(bells).fetch_one(&bench.pool).await.unwrap(), 0);
}

#[tokio::test]
async fn limits_pauses_and_outputs_that_cannot_be_stored_concern_only_whom_they_should() {
    let bench = bench().await;
    let limit = LimitTarget::Workflow("fan".into());
    bench.client.set_limit(&limit, Some(3), "ann").await.unwrap();
    let paused = PauseTarget::Workflow("other".into());
    bench.client.pause(&paused, "not now", "ann").await.unwrap();
    let worker = bench.worker(World::default());
    let other = bench.client.start(&StartRun::new("other", json!({ "n": 20, "odd": true }))).await.unwrap();
    let run = bench.client.start(&of(60)).await.unwrap();
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    assert!(worker.services.most.load(Ordering::SeqCst) <= 3);
    assert!(bench.client.detail(other).await.unwrap().unwrap().attempts.is_empty());
    bench.client.resume(&paused, "ann").await.unwrap();
    let detail = bench.finished(other).await;
    assert_eq!(detail.run.state, RunState::Failed);
    let failed: Vec<_> = detail.steps.iter().filter(|step| step.name == "part" && step.state == StepState::Failed).collect();
    // The group and its one child.
    assert_eq!((failed.len(), failed[1].index), (2, 7));
    worker.stop().await;
}

#[tokio::test]
async fn a_limit_that_is_reached_turns_one_away_and_not_all_that_wait() {
    let bench = bench().await;
    bench.client.set_limit(&LimitTarget::Workflow("fan".into()), Some(2), "ann").await.unwrap();
    for _ in 0..10 {
        bench.client.start(&of(1)).await.unwrap();
    }
    let claimant = bench.claimant("w", Duration::from_secs(60));
    assert_eq!(statements::claim_many(&bench.pool, Queue::Control, 10, &claimant).await.unwrap().len(), 2);
    let turned_away = "select count(*) from snapshots.step where state = 'ready' and doorbell is null";
    assert_eq!(sqlx::query_scalar::<_, i64>(turned_away).fetch_one(&bench.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn many_are_claimed_by_priority_and_completed_each_under_its_own_fence() {
    let bench = Bench::new(fan).await;
    let (later, first) = (of(1), StartRun { priority: 5, ..of(1) });
    for start in [&later, &later, &first] {
        bench.client.start(start).await.unwrap();
    }
    let claimant = bench.claimant("w", Duration::from_secs(60));
    let claim = async |most| statements::claim_many(&bench.pool, Queue::Control, most, &claimant).await.unwrap();
    let urgent = claim(1).await;
    assert_eq!(bench.client.run(urgent[0].run_id).await.unwrap().unwrap().priority, 5);
    let rest = claim(10).await;
    assert_eq!(rest.len(), 2);
    assert!(claim(10).await.is_empty());
    assert!(rest.iter().all(|claimed| claimed.lease().token > urgent[0].lease().token));

    let finished = |lease| Finished { lease, output: json!([]), report: Report::default() };
    let mut zombie = urgent[0].lease();
    zombie.token -= 1;
    let all = [finished(rest[1].lease()), finished(zombie), finished(rest[0].lease())];
    let written = statements::complete_many(&bench.pool, &all).await.unwrap();
    assert_eq!(written, [Written::Done, Written::Fenced, Written::Done]);
    assert_eq!(statements::complete_many(&bench.pool, &all).await.unwrap(), [Written::Fenced; 3]);
}

#[tokio::test]
async fn a_worker_that_drains_claims_none_and_takes_no_doorbell_away() {
    let bench = bench().await;
    let worker = bench.worker(World::default());
    let id = "select id from snapshots.worker";
    poll("it is registered", async || sqlx::query(id).fetch_optional(&bench.pool).await.unwrap().is_some()).await;
    let id: String = sqlx::query_scalar(id).fetch_one(&bench.pool).await.unwrap();
    bench.client.drain(&id, true, "ann").await.unwrap();
    bench.client.start(&of(1)).await.unwrap();
    let claimant = bench.claimant(&id, Duration::from_secs(60));
    assert!(statements::claim_many(&bench.pool, Queue::Control, 5, &claimant).await.unwrap().is_empty());
    let bells = "select count(*) from apalis.jobs";
    // The worker may have fetched the first one before it heard of the drain; then a second is rung for others.
    assert!(sqlx::query_scalar::<_, i64>(bells).fetch_one(&bench.pool).await.unwrap() >= 1);
    worker.stop().await;
}
