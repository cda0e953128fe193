//! Binaries of several versions on one ledger: runs that an older one planned, and an older one that starts after a newer.
use engine::{Catalog, Client, Ctx, Queue, RetryFrom, RunState, StartRun, StepError, Workflow, statements};
use serde_json::{Value, json};

use crate::engine_support::{Bench, poll};
use crate::support::database;

async fn count(_: Ctx<()>, params: Value) -> Result<Vec<u64>, StepError> {
    Ok((0..params["n"].as_u64().unwrap_or(0)).collect())
}

async fn part(ctx: Ctx<()>, n: u64) -> Result<String, StepError> {
    Ok(format!("{}{n}", ctx.step()))
}

async fn side(ctx: Ctx<()>, counted: Vec<u64>) -> Result<String, StepError> {
    Ok(format!("{} of {}", ctx.step(), counted.len()))
}

async fn join(ctx: Ctx<()>, input: Value) -> Result<Value, StepError> {
    Ok(json!({ "parts": input["part"], "side": input["side"], "count": ctx.output::<Vec<u64>>("count").await? }))
}

/// What an older binary has.
fn older() -> Vec<Workflow<()>> {
    vec![
        Workflow::named("fan", 1)
            .step("plan", count)
            .each("chunk", |counted: &Vec<u64>| counted.clone(), part)
            .step("aside", side)
            .after(&["plan"])
            .step("merge", join)
            .after(&["chunk", "aside"]),
    ]
}

/// The same with other names for all steps.
fn newer() -> Vec<Workflow<()>> {
    vec![
        Workflow::named("fan", 2)
            .finishes(&[1])
            .step("count", count)
            .formerly("plan")
            .each("part", |counted: &Vec<u64>| counted.clone(), part)
            .formerly("chunk")
            .step("side", side)
            .after(&["count"])
            .formerly("beside")
            .formerly("aside")
            .step("join", join)
            .after(&["part", "side"])
            .formerly("merge"),
    ]
}

#[tokio::test]
async fn a_run_planned_under_the_former_names_of_its_steps_is_finished_and_retried_by_the_renamed_code() {
    let bench = Bench::new(newer).await;
    let old = Client::new(bench.pool.clone(), Catalog::of(&older()).unwrap());
    let run = old.start(&StartRun::new("fan", json!({ "n": 2 }))).await.unwrap();
    // The older binary did the first step and planned the children, before it went.
    let report = statements::Report::default();
    let plan = bench.claim_any("older").await;
    statements::complete(&bench.pool, plan.lease(), &json!([0, 1]), &report).await.unwrap();
    let group = bench.claim_any("older").await;
    statements::plan(&bench.pool, group.lease(), &[json!(0), json!(1)], &report).await.unwrap();
    bench.client.cancel(run, "ann").await.unwrap();
    bench.client.retry(run, RetryFrom::FailedStep, "ann").await.unwrap();

    let worker = bench.worker(());
    let detail = bench.finished(run).await;
    assert_eq!(detail.run.state, RunState::Succeeded, "{:?}", detail.run.error);
    assert_eq!(detail.run.version, 1);
    let joined = json!({ "parts": ["part0", "part1"], "side": "side of 2", "count": [0, 1] });
    assert_eq!(detail.step("merge").output, Some(joined.clone()));
    let again = bench.finished(bench.client.start(&StartRun::new("fan", json!({ "n": 2 }))).await.unwrap()).await;
    assert_eq!((again.run.version, &again.step("join").output), (2, &Some(joined)));
    worker.stop().await;
}

#[tokio::test]
async fn steps_doorbells_and_pauses_under_the_former_name_of_a_queue_go_on_under_the_new_one() {
    let bench = Bench::new(newer).await;
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 3 }))).await.unwrap();
    // What a binary wrote in which queue `io` was called `disk`, and what the migration that renamed it wrote.
    let older = "update snapshots.step set queue = 'disk'; update apalis.jobs set job_type = 'disk';
        insert into snapshots.pause (kind, name, reason, actor) values ('queue', 'disk', 'too hot', 'ann');
        insert into snapshots.queue_name (former, queue) values ('disk', 'io')";
    sqlx::raw_sql(older).execute(&bench.pool).await.unwrap();
    let shown = bench.client.detail(run).await.unwrap().unwrap();
    assert!(shown.steps.iter().all(|step| step.queue == Queue::Io));
    let worker = bench.worker(());
    poll("the pause is moved", async || bench.client.pauses().await.unwrap()[0].name == "io").await;
    assert_eq!(bench.client.detail(run).await.unwrap().unwrap().attempts.len(), 0);
    bench.client.resume(&engine::PauseTarget::Queue(Queue::Io), "ann").await.unwrap();
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    let left = "select count(*) from apalis.jobs where job_type = 'disk'";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&bench.pool).await.unwrap(), 0);
    worker.stop().await;
}

#[tokio::test]
async fn an_older_binary_starts_beside_a_newer_one_and_leaves_its_functions_alone() {
    let bench = Bench::new(newer).await;
    // What a newer binary leaves behind: a migration that we do not know, and functions of a greater revision.
    let newer = "insert into snapshots._sqlx_migrations (version, description, success, checksum, execution_time)
            values (99990101000000, 'newer', true, '\\x00', 0);
        update snapshots.function_revision set revision = revision + 1;
        create or replace function snapshots.is_paused(p_workflow text, p_queue text) returns boolean language plpgsql stable as
            $$ begin return false; /* newer */ end $$";
    sqlx::raw_sql(newer).execute(&bench.pool).await.unwrap();
    let is_newer = async || {
        let sql = "select pg_get_functiondef('snapshots.is_paused(text, text)'::regprocedure) like '%newer%'";
        sqlx::query_scalar::<_, bool>(sql).fetch_one(&bench.pool).await.unwrap()
    };
    engine::migrate(&bench.pool).await.unwrap();
    assert!(is_newer().await);
    let worker = bench.worker(());
    let run = bench.client.start(&StartRun::new("fan", json!({ "n": 1 }))).await.unwrap();
    assert_eq!(bench.finished(run).await.run.state, RunState::Succeeded);
    worker.stop().await;
    sqlx::query("update snapshots.function_revision set revision = revision - 1").execute(&bench.pool).await.unwrap();
    engine::migrate(&bench.pool).await.unwrap();
    assert!(!is_newer().await, "functions of the same revision are made anew");
}

#[tokio::test]
async fn an_older_binary_starts_on_an_indexed_database_that_a_newer_one_has_migrated() {
    let database = database().await;
    let pool = database.pool().await;
    chain::migrate(&pool).await.unwrap();
    let newer = "insert into snapshots._chain_migrations (version, description, success, checksum, execution_time)
        values (99990101000000, 'newer', true, '\\x00', 0)";
    sqlx::raw_sql(newer).execute(&pool).await.unwrap();
    chain::migrate(&pool).await.unwrap();
}
