//! The engine when things break: crashes, zombies, lost and doubled doorbells, shutdowns, dropped connections.
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use engine::{
    Ctx, RunState, StartRun, StepError, StepState, Workflow,
    statements::{self, Ending, Renewed, Report, Written},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::engine_support::{Bench, FAST, poll};

/// Counts what ran, and lets steps wait until the test says so.
struct Probe {
    begun: AtomicUsize,
    gate: Semaphore,
}

impl Probe {
    fn open() -> Self {
        Self { begun: AtomicUsize::new(0), gate: Semaphore::new(Semaphore::MAX_PERMITS) }
    }

    fn shut() -> Self {
        Self { begun: AtomicUsize::new(0), gate: Semaphore::new(0) }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }
}

async fn gated(ctx: Ctx<Probe>, input: Value) -> Result<Value, StepError> {
    ctx.services().begun.fetch_add(1, Ordering::Relaxed);
    let _pass = ctx.services().gate.acquire().await.map_err(StepError::fail)?;
    Ok(input)
}

async fn plan(_: Ctx<Probe>, params: Value) -> Result<Vec<u64>, StepError> {
    Ok((0..params["n"].as_u64().unwrap_or(0)).collect())
}

fn line() -> Vec<Workflow<Probe>> {
    vec![Workflow::named("line", 1).step("a", gated).attempts(2).backoff(FAST).step("b", gated)]
}

fn fan() -> Vec<Workflow<Probe>> {
    vec![
        Workflow::named("fan", 1)
            .step("plan", plan)
            .each("part", |items: &Vec<Value>| items.clone(), gated)
            .backoff(FAST)
            .step("join", gated),
    ]
}

async fn doorbells(bench: &Bench<Probe>) -> i64 {
    sqlx::query_scalar("select count(*) from apalis.jobs").fetch_one(&bench.pool).await.unwrap()
}

async fn sweep(bench: &Bench<Probe>) -> i32 {
    statements::sweep(&bench.pool, true, Duration::from_secs(60), Duration::from_secs(60)).await.unwrap().expired
}

async fn expire(bench: &Bench<Probe>) {
    poll("the lease has expired", async || sweep(bench).await > 0).await;
}

#[tokio::test]
async fn a_zombie_is_fenced_from_everything_it_could_write() {
    let bench = Bench::new(line).await;
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    let zombie = bench.claim_for("zombie", Duration::from_millis(1)).await.unwrap().lease();
    expire(&bench).await;
    let second = bench.claim_any("second").await;
    assert_eq!((second.lease().step, second.attempt), (zombie.step, 2));
    assert!(second.lease().token > zombie.token);

    assert_eq!(statements::renew(&bench.pool, zombie, Duration::from_secs(9), &Report::default()).await.unwrap(), Renewed::Lost);
    assert_eq!(statements::complete(&bench.pool, zombie, &json!("z"), &Report::default()).await.unwrap(), Written::Fenced);
    assert_eq!(statements::plan(&bench.pool, zombie, &[json!(1)], &Report::default()).await.unwrap(), Written::Fenced);
    assert_eq!(statements::save_checkpoint(&bench.pool, zombie, &json!("z")).await.unwrap(), Written::Fenced);
    let failed = Ending::Failed { error: "z".to_owned() };
    assert_eq!(statements::end(&bench.pool, zombie, &failed, &Report::default()).await.unwrap(), None);

    assert_eq!(statements::complete(&bench.pool, second.lease(), &json!("ok"), &Report::default()).await.unwrap(), Written::Done);
    let detail = bench.client.detail(run).await.unwrap().unwrap();
    assert_eq!(detail.steps[0].output, Some(json!("ok")));
    let outcomes: Vec<_> = detail.attempts.iter().filter_map(|attempt| attempt.outcome.as_deref()).collect();
    assert_eq!(outcomes, ["lost", "succeeded"]);
}

#[tokio::test]
async fn completing_again_and_again_sets_the_next_step_off_once() {
    let bench = Bench::new(line).await;
    bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    let lease = bench.claim_any("hand").await.lease();
    let before = doorbells(&bench).await;
    let completions = (0..8).map(|_| {
        let pool = bench.pool.clone();
        tokio::spawn(async move { statements::complete(&pool, lease, &json!(1), &Report::default()).await.unwrap() })
    });
    let written = futures::future::join_all(completions).await;
    assert_eq!(written.into_iter().filter(|written| *written.as_ref().unwrap() == Written::Done).count(), 1);
    assert_eq!(doorbells(&bench).await, before + 1);
}

#[tokio::test]
async fn of_many_claims_of_one_step_one_succeeds() {
    let bench = Bench::new(line).await;
    bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    let claims = futures::future::join_all((0..8).map(|_| bench.claim_for("w", Duration::from_secs(60)))).await;
    assert_eq!(claims.into_iter().flatten().count(), 1);
}

#[tokio::test]
async fn a_lease_renewed_in_time_is_left_alone() {
    let bench = Bench::new(line).await;
    bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    let lease = bench.claim_for("slow", Duration::from_millis(1)).await.unwrap().lease();
    assert_eq!(statements::renew(&bench.pool, lease, Duration::from_secs(60), &Report::default()).await.unwrap(), Renewed::Held);
    assert_eq!(sweep(&bench).await, 0);
}

#[tokio::test]
async fn an_attempt_that_cannot_be_ended_keeps_no_other_from_being_ended() {
    let bench = Bench::new(line).await;
    for n in 0..3 {
        bench.client.start(&StartRun::new("line", json!(n))).await.unwrap();
    }
    let mut steps = Vec::new();
    for _ in 0..3 {
        steps.push(bench.claim_for("gone", Duration::from_millis(1)).await.unwrap().lease().step);
    }
    // The first to be swept.
    let broken = format!(
        "create function break_one() returns trigger language plpgsql as $$ begin raise 'broken'; end $$; \
         create trigger break_one before update on snapshots.attempt for each row when (new.step_id = {}) \
             execute function break_one()",
        steps[0]
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(broken)).execute(&bench.pool).await.unwrap();
    let mut ended = 0;
    poll("the two others are ended", async || {
        ended += sweep(&bench).await;
        ended == 2
    })
    .await;
    sqlx::raw_sql("drop trigger break_one on snapshots.attempt").execute(&bench.pool).await.unwrap();
    assert_eq!(sweep(&bench).await, 1, "it is tried again");
}

#[tokio::test]
async fn the_error_of_a_failed_step_is_stored_even_if_it_holds_nul() {
    async fn fails(_: Ctx<Probe>, _: Value) -> Result<Value, StepError> {
        Err(StepError::fail("the node said a\0b"))
    }
    let bench = Bench::new(|| vec![Workflow::named("nul", 1).step("a", fails)]).await;
    let run = bench.client.start(&StartRun::new("nul", json!(1))).await.unwrap();
    let worker = bench.worker(Probe::open());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.error.as_deref(), Some("step `a` failed: the node said a\u{fffd}b"));
    worker.stop().await;
}

#[tokio::test]
async fn a_crash_costs_an_attempt_and_a_step_that_always_crashes_stops_at_its_cap() {
    let bench = Bench::new(line).await;
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    for attempt in 1..=2 {
        let claimed = bench.claim_for("victim", Duration::from_millis(1)).await.expect("ready at once the first time");
        assert_eq!(claimed.attempt, attempt);
        expire(&bench).await;
    }
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Failed);
    let error = "step `a` failed: worker victim stopped renewing its lease in attempt 2 of 2";
    assert_eq!(detail.run.error.as_deref(), Some(error));
    assert_eq!(detail.step("b").state, StepState::Skipped);
}

#[tokio::test]
async fn lost_doorbells_are_rung_again() {
    let mut bench = Bench::new(line).await;
    bench.config.doorbell_lost_after = Duration::from_millis(100);
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    sqlx::query("delete from apalis.jobs").execute(&bench.pool).await.unwrap();
    let worker = bench.worker(Probe::open());
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn a_doorbell_rung_three_times_runs_its_step_once() {
    let bench = Bench::new(line).await;
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    for copy in ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"] {
        let sql = "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata) \
             select $1, job_type, job, status, attempts, max_attempts, run_at, priority, metadata \
             from apalis.jobs order by id limit 1";
        sqlx::query(sql).bind(copy).execute(&bench.pool).await.unwrap();
    }
    let worker = bench.worker(Probe::open());
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    poll("all doorbells are answered", async || {
        let sql = "select count(*) from apalis.jobs where status <> 'Done'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&bench.pool).await.unwrap() == 0
    })
    .await;
    assert_eq!(worker.services.begun(), 2, "step a and step b, once each");
    worker.stop().await;
}

#[tokio::test]
async fn steps_that_wait_behind_others_are_not_rung_for_again() {
    let mut bench = Bench::new(fan).await;
    bench.config.io_slots = 1;
    bench.config.doorbell_lost_after = Duration::from_millis(1);
    let worker = bench.worker(Probe::shut());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 40 }))).await.unwrap();
    poll("a child runs", async || worker.services.begun() == 1).await;
    let rung = doorbells(&bench).await;
    let seen = "select seen_at from snapshots.worker";
    for _ in 0..5 {
        let before: chrono::DateTime<chrono::Utc> = sqlx::query_scalar(seen).fetch_one(&bench.pool).await.unwrap();
        poll("another sweep has passed", async || {
            sqlx::query_scalar::<_, chrono::DateTime<chrono::Utc>>(seen).fetch_one(&bench.pool).await.unwrap() > before
        })
        .await;
    }
    assert_eq!(doorbells(&bench).await, rung);
    worker.services.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn a_soft_shutdown_yields_a_step_without_spending_its_attempt() {
    async fn resumable(ctx: Ctx<Probe>, _: Value) -> Result<u64, StepError> {
        ctx.services().begun.fetch_add(1, Ordering::Relaxed);
        if let Some(part) = ctx.state::<u64>().await? {
            return Ok(part);
        }
        ctx.stop_token().cancelled().await;
        ctx.save_state(&7).await?;
        Err(StepError::Yield)
    }
    let bench = Bench::new(|| vec![Workflow::named("resumable", 1).step("a", resumable).attempts(1)]).await;
    let first = bench.worker(Probe::open());
    let run = bench.client.start(&StartRun::new("resumable", json!({}))).await.unwrap();
    poll("the step runs", async || first.services.begun() == 1).await;
    first.stop().await;
    let second = bench.worker(Probe::open());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    assert_eq!(detail.steps[0].output, Some(json!(7)));
    let history: Vec<_> = detail.attempts.iter().map(|attempt| (attempt.no, attempt.outcome.as_deref())).collect();
    assert_eq!(history, [(1, Some("yielded")), (1, Some("succeeded"))]);
    second.stop().await;
}

#[tokio::test]
async fn a_soft_shutdown_lets_a_step_finish_past_its_lease() {
    let bench = Bench::new(line).await;
    let worker = bench.worker(Probe::shut());
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    poll("the step runs", async || worker.services.begun() == 1).await;
    worker.shutdown.soft.cancel();
    let services = std::sync::Arc::clone(&worker.services);
    let until = |detail: &engine::RunDetail| detail.steps[0].lease_until.unwrap();
    let before = until(&bench.client.detail(run).await.unwrap().unwrap());
    poll("a whole lease has passed while draining", async || {
        until(&bench.client.detail(run).await.unwrap().unwrap()) > before + chrono::Duration::milliseconds(1200)
    })
    .await;
    services.gate.add_permits(9);
    worker.ended().await;
    let detail = bench.client.detail(run).await.unwrap().unwrap();
    assert_eq!(detail.steps[0].state, StepState::Succeeded);
    assert_eq!(detail.steps[1].state, StepState::Ready, "a draining worker claims nothing more");
    assert_eq!(detail.attempts.len(), 1);
}

#[tokio::test]
async fn a_killed_worker_is_taken_over_and_the_join_runs_once() {
    let bench = Bench::new(fan).await;
    let first = bench.worker(Probe::shut());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 60 }))).await.unwrap();
    poll("children run", async || first.services.begun() >= 4).await;
    first.kill().await;
    let second = bench.worker(Probe::open());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    let expected: Vec<u64> = (0..60).collect();
    assert_eq!(detail.step("join").output, Some(json!(expected)));
    assert_eq!(second.services.begun(), 61, "each child and the join");
    let lost = detail.attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("lost")).count();
    assert!((4..=bench.config.io_slots).contains(&lost), "{lost}");
    second.stop().await;
}

#[tokio::test]
async fn two_engines_share_a_fan_out_without_doing_anything_twice() {
    let bench = Bench::new(fan).await;
    let (one, two) = (bench.worker(Probe::open()), bench.worker(Probe::open()));
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 300 }))).await.unwrap();
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded);
    assert_eq!(one.services.begun() + two.services.begun(), 301);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn dropped_connections_cost_no_attempt() {
    let mut bench = Bench::new(fan).await;
    bench.config.lease = Duration::from_secs(10);
    let worker = bench.worker(Probe::shut());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 100 }))).await.unwrap();
    poll("children run", async || worker.services.begun() >= 8).await;
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()";
    for _ in 0..3 {
        sqlx::query(kill).execute(&bench.pool).await.unwrap();
        worker.services.gate.add_permits(20);
        let begun = worker.services.begun();
        poll("work goes on", async || worker.services.begun() > begun).await;
    }
    worker.services.gate.add_permits(1000);
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    let others: Vec<_> = detail.attempts.iter().filter(|attempt| attempt.no != 1).collect();
    assert!(others.is_empty(), "{others:#?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_run_of_an_unknown_version_is_never_run_and_fails_with_the_reason() {
    let mut bench = Bench::new(line).await;
    bench.config.stranded_after = Duration::from_millis(500);
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    sqlx::query("update snapshots.run set version = 9").execute(&bench.pool).await.unwrap();
    let worker = bench.worker(Probe::open());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Failed);
    let error = "no worker knows version 9 of workflow `line` any more (workers know: 1); start it again";
    assert_eq!(detail.run.error.as_deref(), Some(error));
    assert_eq!(worker.services.begun(), 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_step_that_the_code_does_not_have_fails_with_the_reason() {
    let bench = Bench::new(line).await;
    let run = bench.client.start(&StartRun::new("line", json!(1))).await.unwrap();
    sqlx::query("update snapshots.step set name = 'gone' where name = 'a'").execute(&bench.pool).await.unwrap();
    let worker = bench.worker(Probe::open());
    let detail = bench.finished(run).await;
    let error = "step `gone` failed: version 1 of workflow `line` has no step `gone` in this binary; \
         its steps were changed without a new version";
    assert_eq!(detail.run.error.as_deref(), Some(error));
    assert_eq!(worker.services.begun(), 0);
    worker.stop().await;
}

#[tokio::test]
async fn input_that_does_not_decode_fails_at_once_with_the_reason() {
    let bench = Bench::new(|| {
        vec![
            Workflow::named("shape", 1)
                .step("plan", gated)
                .each("part", |items: &Vec<Value>| items.clone(), gated)
                .step("join", gated),
        ]
    })
    .await;
    let worker = bench.worker(Probe::open());
    let run = bench.client.start(&StartRun::new("shape", json!("text"))).await.unwrap();
    let error = bench.finished(run).await.run.error.clone().unwrap();
    assert!(error.starts_with("step `part` failed: cannot decode the input of step `part`: invalid type"), "{error}");
    worker.stop().await;
}
