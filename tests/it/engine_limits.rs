//! Limits on steps at once over all machines, and priorities.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use engine::{Ctx, LimitError, LimitTarget, RunState, StartRun, StepError, Workflow};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::engine_support::{Bench, poll};

/// Counts how many steps run at once, at most and now; a gate may hold them.
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
    gate: Semaphore,
}

impl Gauge {
    fn open() -> Arc<Self> {
        Self::with(Semaphore::MAX_PERMITS)
    }

    fn with(permits: usize) -> Arc<Self> {
        Arc::new(Self { now: AtomicUsize::new(0), most: AtomicUsize::new(0), gate: Semaphore::new(permits) })
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

async fn plan(_: Ctx<Arc<Gauge>>, params: Value) -> Result<Vec<u64>, StepError> {
    Ok((0..params["n"].as_u64().unwrap_or(0)).collect())
}

async fn gauged(ctx: Ctx<Arc<Gauge>>, _: Value) -> Result<(), StepError> {
    let gauge = ctx.services();
    let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(now, Ordering::SeqCst);
    let pass = gauge.gate.acquire().await.map_err(StepError::fail)?;
    tokio::task::yield_now().await;
    drop(pass);
    gauge.now.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

fn workflows() -> Vec<Workflow<Arc<Gauge>>> {
    let fan = |name| Workflow::named(name, 1).step("plan", plan).each("part", |items: &Vec<Value>| items.clone(), gauged);
    vec![fan("fan"), fan("other"), Workflow::named("single", 1).step("only", gauged)]
}

fn fan(workflow: &str, n: u64) -> StartRun {
    StartRun::new(workflow, json!({ "n": n }))
}

async fn held(bench: &Bench<Arc<Gauge>>) -> i64 {
    bench.client.limits().await.unwrap().iter().map(|limit| limit.held).sum()
}

#[tokio::test]
async fn a_workflow_never_runs_more_steps_at_once_than_its_limit_over_two_engines() {
    let bench = Bench::new(workflows).await;
    let limit = LimitTarget::Workflow("fan".into());
    bench.client.set_limit(&limit, Some(3), "ann").await.unwrap();
    let gauge = Gauge::with(0);
    let (one, two) = (bench.worker(Arc::clone(&gauge)), bench.worker(Arc::clone(&gauge)));
    let run = bench.client.start(&fan("fan", 200)).await.unwrap();
    let running = || gauge.now.load(Ordering::SeqCst);
    poll("all slots are used", async || running() == 3).await;
    assert_eq!(held(&bench).await, 3);
    let other = bench.client.start(&fan("other", 4)).await.unwrap();
    poll("the other workflow is not limited", async || running() == 7).await;
    gauge.gate.add_permits(1000);
    for run in [run, other] {
        let detail = bench.finished(run).await;
        assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    }
    assert!(gauge.most() <= 7, "three of the one and all four of the other, not {}", gauge.most());
    assert_eq!(held(&bench).await, 0);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_global_limit_holds_for_all_workflows_together() {
    let bench = Bench::new(workflows).await;
    bench.client.set_limit(&LimitTarget::Global, Some(2), "ann").await.unwrap();
    let worker = bench.worker(Gauge::open());
    let runs = [bench.client.start(&fan("fan", 30)).await.unwrap(), bench.client.start(&fan("other", 30)).await.unwrap()];
    for run in runs {
        assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    }
    assert!(worker.services.most() <= 2, "{}", worker.services.most());
    worker.stop().await;
}

#[tokio::test]
async fn the_slots_of_a_killed_worker_are_free_again_when_its_leases_have_expired() {
    let bench = Bench::new(workflows).await;
    bench.client.set_limit(&LimitTarget::Workflow("fan".into()), Some(2), "ann").await.unwrap();
    let first = bench.worker(Gauge::with(0));
    let run = bench.client.start(&fan("fan", 10)).await.unwrap();
    poll("both slots are used", async || first.services.now.load(Ordering::SeqCst) == 2).await;
    first.kill().await;
    let second = bench.worker(Gauge::open());
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    assert!(second.services.most() <= 2);
    assert_eq!(held(&bench).await, 0);
    second.stop().await;
}

#[tokio::test]
async fn limits_are_changed_and_lifted_and_nonsense_is_refused() {
    let bench = Bench::new(workflows).await;
    let target = LimitTarget::Workflow("fan".into());
    bench.client.set_limit(&target, Some(5), "ann").await.unwrap();
    bench.client.set_limit(&target, Some(2), "ann").await.unwrap();
    let limits = bench.client.limits().await.unwrap();
    assert_eq!((limits.len(), limits[0].key.as_str(), limits[0].slots), (1, "workflow fan", 2));
    for slots in [0, 10_001] {
        let refused = bench.client.set_limit(&target, Some(slots), "ann").await;
        assert!(matches!(refused, Err(LimitError::OutOfRange { .. })));
    }
    let unknown = bench.client.set_limit(&LimitTarget::Workflow("x".into()), Some(1), "ann").await;
    assert!(matches!(unknown, Err(LimitError::UnknownWorkflow { .. })));
    bench.client.set_limit(&target, None, "ann").await.unwrap();
    assert!(bench.client.limits().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_run_of_higher_priority_overtakes_those_that_wait() {
    let mut bench = Bench::new(workflows).await;
    bench.config.io_slots = 1;
    let worker = bench.worker(Gauge::with(0));
    let single = StartRun::new("single", json!({}));
    let first = bench.client.start(&single).await.unwrap();
    poll("the only slot is taken", async || worker.services.now.load(Ordering::SeqCst) == 1).await;
    let mut runs = vec![first];
    for _ in 0..6 {
        runs.push(bench.client.start(&single).await.unwrap());
    }
    let urgent = bench.client.start(&StartRun { priority: 10, ..single }).await.unwrap();
    worker.services.gate.add_permits(1000);
    let mut begun = Vec::new();
    for run in runs.into_iter().chain([urgent]) {
        begun.push((bench.finished(run).await.run.started_at.unwrap(), run));
    }
    begun.sort();
    let place = begun.iter().position(|(_, run)| *run == urgent).unwrap();
    assert!(place <= 2, "after what was running and what a worker had in hand, not at place {place}");
    worker.stop().await;
}
