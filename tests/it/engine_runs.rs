//! The engine against a real Postgres: what a run promises while nothing breaks but the steps themselves.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{
    Ctx, Queue, RunState, StartError, StartRun, StepError, StepState, Workflow,
    statements::{self, Ending, Report},
};
use serde_json::{Value, json};

use crate::engine_support::{Bench, FAST, poll};

#[derive(Default)]
struct Calls {
    children: AtomicUsize,
    join: AtomicUsize,
}

async fn double(_: Ctx<Calls>, n: u64) -> Result<u64, StepError> {
    Ok(n * 2)
}

async fn start_at(_: Ctx<Calls>, params: Value) -> Result<u64, StepError> {
    params["from"].as_u64().ok_or_else(|| StepError::fail("no `from`"))
}

async fn count(_: Ctx<Calls>, params: Value) -> Result<Vec<u64>, StepError> {
    let n = params["n"].as_u64().ok_or_else(|| StepError::fail("no `n`"))?;
    Ok((0..n).collect())
}

async fn square(ctx: Ctx<Calls>, n: u64) -> Result<u64, StepError> {
    ctx.services().children.fetch_add(1, Ordering::Relaxed);
    Ok(n * n)
}

async fn sum(ctx: Ctx<Calls>, squares: Vec<u64>) -> Result<u64, StepError> {
    ctx.services().join.fetch_add(1, Ordering::Relaxed);
    Ok(squares.iter().sum())
}

fn fan_out() -> Workflow<Calls> {
    Workflow::named("fan", 1)
        .step("plan", count)
        .each("square", |plan: &Vec<u64>| plan.clone(), square)
        .queue(Queue::Cpu)
        .step("sum", sum)
}

#[tokio::test]
async fn a_linear_run_hands_each_output_to_the_next_step() {
    let bench = Bench::new(|| vec![Workflow::named("line", 1).step("a", start_at).step("b", double).step("c", double)]).await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("line", json!({ "from": 5 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    let outputs: Vec<_> = detail.steps.iter().map(|step| step.output.clone().unwrap()).collect();
    assert_eq!(outputs, [json!(5), json!(10), json!(20)]);
    assert!(detail.attempts.iter().all(|attempt| attempt.no == 1));
    worker.stop().await;
}

#[tokio::test]
async fn a_thousand_children_run_once_each_and_the_join_sees_them_in_order() {
    let bench = Bench::new(|| vec![fan_out()]).await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 1000 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    let group = detail.step("square");
    assert_eq!((group.children_total, group.children_left, group.children_failed), (Some(1000), Some(0), Some(0)));
    assert_eq!(detail.step("sum").output, Some(json!((0..1000_u64).map(|n| n * n).sum::<u64>())));
    assert_eq!(worker.services.children.load(Ordering::Relaxed), 1000);
    assert_eq!(worker.services.join.load(Ordering::Relaxed), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_fan_out_of_nothing_reaches_its_join() {
    let bench = Bench::new(|| vec![fan_out()]).await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 0 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    assert_eq!(detail.step("sum").output, Some(json!(0)));
    worker.stop().await;
}

#[tokio::test]
async fn branches_of_unequal_length_meet_in_their_join() {
    async fn join(_: Ctx<Calls>, input: Value) -> Result<Value, StepError> {
        Ok(input)
    }
    let bench = Bench::new(|| {
        vec![
            Workflow::named("dag", 1)
                .step("dump", start_at)
                .step("checksum", double)
                .step("compress", double)
                .after(&["dump"])
                .step("upload", double)
                .step("publish", join)
                .after(&["checksum", "upload"]),
        ]
    })
    .await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("dag", json!({ "from": 1 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    assert_eq!(detail.step("publish").output, Some(json!({ "checksum": 2, "upload": 4 })));
    worker.stop().await;
}

async fn flaky(ctx: Ctx<Calls>, n: u64) -> Result<u64, StepError> {
    if n % 10 == 3 && ctx.attempt() == 1 {
        return Err(StepError::retry(std::io::Error::other("connection reset")));
    }
    Ok(n)
}

#[tokio::test]
async fn a_child_that_fails_once_is_tried_again_and_its_history_kept() {
    let bench = Bench::new(|| {
        vec![
            Workflow::named("flaky", 1)
                .step("plan", count)
                .each("part", |plan: &Vec<u64>| plan.clone(), flaky)
                .backoff(FAST)
                .step("sum", sum),
        ]
    })
    .await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("flaky", json!({ "n": 20 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    let retried: Vec<_> = detail.attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("retry")).collect();
    assert_eq!(retried.len(), 2);
    assert!(retried.iter().all(|attempt| attempt.error.as_deref() == Some("connection reset")));
    worker.stop().await;
}

async fn doomed(ctx: Ctx<Calls>, n: u64) -> Result<u64, StepError> {
    ctx.services().children.fetch_add(1, Ordering::Relaxed);
    match n {
        7 | 11 => Err(StepError::fail(format!("chunk {n} is broken"))),
        _ => Ok(n),
    }
}

#[tokio::test]
async fn children_that_fail_for_good_fail_the_join_and_the_run_visibly() {
    let bench = Bench::new(|| {
        vec![
            Workflow::named("doomed", 1)
                .step("plan", count)
                .each("dump", |plan: &Vec<u64>| plan.clone(), doomed)
                .step("sum", sum)
                .step("publish", double),
        ]
    })
    .await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("doomed", json!({ "n": 30 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Failed);
    let error = "2 of 30 `dump` steps failed; first: child 7: chunk 7 is broken";
    assert_eq!(detail.run.error.as_deref(), Some(error));
    assert_eq!(detail.step("dump").state, StepState::Failed);
    assert_eq!(detail.step("sum").state, StepState::Skipped);
    assert_eq!(detail.step("publish").state, StepState::Skipped);
    assert_eq!(worker.services.children.load(Ordering::Relaxed), 30, "siblings go on");
    worker.stop().await;
}

#[tokio::test]
async fn panics_in_async_and_in_blocking_code_are_errors_with_their_message() {
    async fn in_async(ctx: Ctx<Calls>, _: Value) -> Result<u64, StepError> {
        if ctx.attempt() == 1 {
            panic!("async boom");
        }
        Ok(1)
    }
    async fn in_blocking(ctx: Ctx<Calls>, n: u64) -> Result<u64, StepError> {
        let first = ctx.attempt() == 1;
        ctx.blocking(move || if first { panic!("blocking {}", "boom") } else { Ok(n) }).await
    }
    let bench =
        Bench::new(|| vec![Workflow::named("panic", 1).step("a", in_async).backoff(FAST).step("b", in_blocking).backoff(FAST)])
            .await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("panic", json!({}))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    let errors: Vec<_> = detail.attempts.iter().filter_map(|attempt| attempt.error.clone()).collect();
    assert_eq!(errors, ["panicked: async boom", "panicked: blocking boom"]);
    worker.stop().await;
}

#[tokio::test]
async fn a_step_over_its_timeout_is_stopped_and_tried_again() {
    async fn hang(ctx: Ctx<Calls>, _: Value) -> Result<u64, StepError> {
        if ctx.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(1)
    }
    let bench =
        Bench::new(|| vec![Workflow::named("hang", 1).step("a", hang).backoff(FAST).timeout(Duration::from_millis(200))]).await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("hang", json!({}))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    assert_eq!(detail.attempts[0].error.as_deref(), Some("the step ran longer than its timeout"));
    worker.stop().await;
}

#[tokio::test]
async fn a_step_out_of_attempts_fails_the_run_and_shows_that_it_was_retrying() {
    async fn never(_: Ctx<Calls>, _: Value) -> Result<u64, StepError> {
        Err(StepError::retry("still down"))
    }
    let bench =
        Bench::new(|| vec![Workflow::named("never", 1).step("a", never).attempts(2).backoff(FAST).step("b", double)]).await;
    let run = bench.client.start(&StartRun::new("never", json!({}))).await.unwrap();
    // Driven by hand up to the wait, so that the state in between is seen.
    let claimed = bench.claim_any("hand").await;
    let after = Duration::from_secs(60);
    let ending = Ending::Retry { after: Some(after), error: "still down".to_owned() };
    statements::end(&bench.pool, claimed.lease(), &ending, &Report::default()).await.unwrap();
    let waiting = bench.client.run(run).await.unwrap().unwrap();
    assert_eq!(waiting.state, RunState::Retrying);
    assert!(waiting.next_attempt_at.unwrap() > waiting.created_at + chrono::Duration::seconds(55));
    sqlx::query("update snapshots.step set run_at = now() where state = 'ready'").execute(&bench.pool).await.unwrap();
    let worker = bench.worker(Calls::default());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Failed);
    assert_eq!(detail.run.error.as_deref(), Some("step `a` failed: still down"));
    assert_eq!(detail.step("b").state, StepState::Skipped);
    worker.stop().await;
}

#[tokio::test]
async fn a_second_start_with_the_same_key_is_refused_until_the_first_run_has_ended() {
    let bench = Bench::new(|| vec![fan_out()]).await;
    let request = StartRun::new("fan", json!({ "n": 1 })).unique("mainnet");
    let run = bench.client.start(&request).await.unwrap();
    let mut tx = bench.pool.begin().await.unwrap();
    let refused = bench.client.start_in(&mut tx, &request).await.unwrap_err();
    assert!(matches!(refused, StartError::AlreadyRunning { run: holder } if holder == run));
    // The caller's transaction is still usable, and another key is free.
    let other = StartRun::new("fan", json!({ "n": 1 })).unique("testnet");
    bench.client.start_in(&mut tx, &other).await.unwrap();
    tx.commit().await.unwrap();
    let worker = bench.worker(Calls::default());
    bench.finished(run).await;
    bench.client.start(&request).await.unwrap();
    worker.stop().await;
}

#[tokio::test]
async fn many_starts_with_one_key_at_once_make_one_run() {
    let bench = Bench::new(|| vec![fan_out()]).await;
    let request = StartRun::new("fan", json!({ "n": 1 })).unique("mainnet");
    let starts = (0..8).map(|_| {
        let (client, request) = (bench.client.clone(), request.clone());
        tokio::spawn(async move { client.start(&request).await })
    });
    let results = futures::future::join_all(starts).await;
    assert_eq!(results.into_iter().filter(|result| result.as_ref().unwrap().is_ok()).count(), 1);
}

#[tokio::test]
async fn a_run_started_in_a_transaction_that_rolls_back_never_was() {
    let bench = Bench::new(|| vec![fan_out()]).await;
    let mut tx = bench.pool.begin().await.unwrap();
    let run = bench.client.start_in(&mut tx, &StartRun::new("fan", json!({ "n": 1 }))).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(bench.client.run(run).await.unwrap().is_none());
}

#[tokio::test]
async fn an_unknown_workflow_and_a_bad_priority_are_refused() {
    let bench = Bench::new(|| vec![fan_out()]).await;
    let unknown = bench.client.start(&StartRun::new("fun", json!({}))).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no workflow `fun`; known are: fan");
    let mut eager = StartRun::new("fan", json!({}));
    eager.priority = -1;
    let refused = bench.client.start(&eager).await.unwrap_err();
    assert_eq!(refused.to_string(), "priority -1 is outside 0..=1000");
}

#[tokio::test]
async fn a_step_finds_its_state_outputs_params_and_log_again() {
    async fn first(_: Ctx<Calls>, _: Value) -> Result<String, StepError> {
        Ok("plan".to_owned())
    }
    async fn second(ctx: Ctx<Calls>, _: String) -> Result<Value, StepError> {
        let params: Value = ctx.params()?;
        let plan: String = ctx.output("first").await?;
        let Some(upload) = ctx.state::<String>().await? else {
            ctx.save_state(&"upload-1").await?;
            ctx.event(engine::Level::Info, "upload.begun", json!({ "parts": 3 })).await?;
            return Err(StepError::retry("cut off"));
        };
        Ok(json!({ "upload": upload, "plan": plan, "params": params }))
    }
    let bench = Bench::new(|| vec![Workflow::named("state", 1).step("first", first).step("second", second).backoff(FAST)]).await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("state", json!({ "k": 1 }))).await.unwrap();
    let detail = bench.finished(run).await;
    let expected = json!({ "upload": "upload-1", "plan": "plan", "params": { "k": 1 } });
    assert_eq!(detail.step("second").output, Some(expected));
    let kinds: Vec<_> = bench.client.events(run, 0, 100).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["run.queued", "upload.begun", "step.retry", "run.succeeded"]);
    worker.stop().await;
}

#[tokio::test]
async fn cancelling_reaches_a_running_step_and_ends_the_run() {
    async fn patient(ctx: Ctx<Calls>, _: Value) -> Result<u64, StepError> {
        ctx.services().children.fetch_add(1, Ordering::Relaxed);
        ctx.cancel_token().cancelled().await;
        Err(StepError::retry("stopped early"))
    }
    let bench = Bench::new(|| vec![Workflow::named("patient", 1).step("a", patient).step("b", double)]).await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("patient", json!({}))).await.unwrap();
    poll("the step runs", async || worker.services.children.load(Ordering::Relaxed) == 1).await;
    bench.client.cancel(run, "tester").await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Cancelled);
    assert_eq!(detail.attempts[0].outcome.as_deref(), Some("cancelled"));
    let again = bench.client.cancel(run, "tester").await.unwrap_err();
    assert_eq!(again.to_string(), format!("run {run} has already ended: cancelled"));
    worker.stop().await;
}

#[tokio::test]
async fn cancelling_in_the_middle_of_a_fan_out_ends_the_run() {
    async fn slow(ctx: Ctx<Calls>, n: u64) -> Result<u64, StepError> {
        ctx.services().children.fetch_add(1, Ordering::Relaxed);
        ctx.cancel_token().cancelled().await;
        Ok(n)
    }
    let bench = Bench::new(|| {
        vec![Workflow::named("slow", 1).step("plan", count).each("part", |plan: &Vec<u64>| plan.clone(), slow).step("sum", sum)]
    })
    .await;
    let worker = bench.worker(Calls::default());
    let run = bench.client.start(&StartRun::new("slow", json!({ "n": 50 }))).await.unwrap();
    poll("children run", async || worker.services.children.load(Ordering::Relaxed) > 1).await;
    bench.client.cancel(run, "tester").await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Cancelled);
    assert_eq!(detail.step("sum").state, StepState::Cancelled);
    worker.stop().await;
}

#[tokio::test]
async fn progress_reaches_the_ledger_with_a_renewal() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    async fn busy(ctx: Ctx<Arc<tokio::sync::Semaphore>>, _: Value) -> Result<u64, StepError> {
        ctx.progress(3, 8, "chunks");
        let _pass = ctx.services().acquire().await.map_err(StepError::fail)?;
        Ok(1)
    }
    let bench = Bench::new(|| vec![Workflow::named("busy", 1).step("a", busy)]).await;
    let worker = bench.worker(Arc::clone(&gate));
    let run = bench.client.start(&StartRun::new("busy", json!({}))).await.unwrap();
    poll("progress is stored", async || {
        let detail = bench.client.detail(run).await.unwrap().unwrap();
        detail.steps[0].progress.as_ref().is_some_and(|progress| progress.done == 3 && progress.unit == "chunks")
    })
    .await;
    gate.add_permits(1);
    bench.finished(run).await;
    worker.stop().await;
}
