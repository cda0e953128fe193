//! Retention: what has ended goes by age and count, what has not stays.
use std::time::Duration;

use engine::{Ctx, Idempotency, Retention, RunFilter, StartRun, StepError, Workflow};
use serde_json::{Value, json};

use crate::engine_support::{Bench, poll};

async fn noop(_: Ctx<()>, _: Value) -> Result<Vec<u64>, StepError> {
    Ok(vec![1, 2])
}

async fn part(_: Ctx<()>, _: u64) -> Result<(), StepError> {
    Ok(())
}

fn workflows() -> Vec<Workflow<()>> {
    vec![Workflow::named("w", 1).step("plan", noop).each("part", |items: &Vec<u64>| items.clone(), part)]
}

/// Ten finished runs, the last of them an hour old, the first ten hours; and one that waits.
async fn aged() -> (Bench<()>, engine::RunId) {
    let bench = Bench::new(workflows).await;
    let worker = bench.worker(());
    for hours in 0..10 {
        let run = bench.client.start(&StartRun::new("w", json!({}))).await.unwrap();
        bench.finished(run).await;
        let sql = "update snapshots.run set done_at = now() - $2 * interval '1 hour' where id = $1";
        sqlx::query(sql).bind(run.0).bind(10 - hours).execute(&bench.pool).await.unwrap();
    }
    poll("all doorbells are answered", async || count(&bench, "apalis.jobs where status <> 'Done'").await == 0).await;
    worker.stop().await;
    let waiting = bench.client.start(&StartRun::new("w", json!({}))).await.unwrap();
    (bench, waiting)
}

async fn count(bench: &Bench<()>, what: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {what}"))).fetch_one(&bench.pool).await.unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn finished_runs_go_by_age_with_all_that_is_theirs() {
    let (bench, waiting) = aged().await;
    let retention = Retention { runs_for: HOUR * 5 + HOUR / 2, ..Retention::default() };
    assert_eq!(bench.client.prune(&retention).await.unwrap().runs, 5);
    assert_eq!(bench.client.runs(&RunFilter::default(), 100).await.unwrap().len(), 6);
    assert_eq!(count(&bench, "snapshots.step").await, 5 * 4 + 2, "of each run a plan, a group, two children");
    assert_eq!(count(&bench, "snapshots.attempt").await, 5 * 4);
    assert_eq!(bench.client.prune(&retention).await.unwrap().runs, 0);
    let none = Retention { runs_for: Duration::ZERO, ..Retention::default() };
    assert_eq!(bench.client.prune(&none).await.unwrap().runs, 5);
    assert!(bench.client.run(waiting).await.unwrap().is_some(), "what is not finished stays");
}

#[tokio::test]
async fn of_a_workflow_the_newest_finished_runs_stay() {
    let (bench, waiting) = aged().await;
    let retention = Retention { runs_per_workflow: 3, ..Retention::default() };
    assert_eq!(bench.client.prune(&retention).await.unwrap().runs, 7);
    let left = bench.client.runs(&RunFilter::default(), 100).await.unwrap();
    assert_eq!((left.len(), left[0].id), (4, waiting));
    assert!(left[1..].iter().all(|run| run.done_at.unwrap() > chrono::Utc::now() - chrono::Duration::hours(4)));
}

#[tokio::test]
async fn keys_audit_lines_and_doorbells_go_by_age() {
    let (bench, _) = aged().await;
    assert_eq!(count(&bench, "apalis.jobs").await, 1, "a doorbell goes as its step is claimed");
    // Those that were answered in vain stay for a while.
    let stale = "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, priority) \
         select 'stale' || n, 'io', '', 'Done', 1, 1, now(), now(), 0 from generate_series(1, 5) n";
    sqlx::query(stale).execute(&bench.pool).await.unwrap();
    let key = Idempotency { principal: "ann", request: "POST /", key: "k", body: b"" };
    bench.client.start_once(&StartRun::new("w", json!({})), Some(&key), "ann").await.unwrap();
    let kept = bench.client.prune(&Retention::default()).await.unwrap();
    assert_eq!((kept.keys, kept.audit, kept.doorbells), (0, 0, 0));
    let zero = Duration::ZERO;
    let retention = Retention { keys_for: zero, audit_for: zero, doorbells_for: zero, ..Retention::default() };
    let pruned = bench.client.prune(&retention).await.unwrap();
    assert_eq!((pruned.keys, pruned.audit, pruned.doorbells), (1, 1, 5));
    assert_eq!(count(&bench, "apalis.jobs").await, 2, "doorbells that nobody has answered stay");
}

#[tokio::test]
async fn an_engine_prunes_by_itself() {
    let (mut bench, waiting) = aged().await;
    bench.config.retention.runs_for = HOUR / 2;
    let worker = bench.worker(());
    bench.finished(waiting).await;
    poll("only the newest is left", async || {
        let left = bench.client.runs(&RunFilter::default(), 100).await.unwrap();
        left.len() == 1 && left[0].id == waiting
    })
    .await;
    worker.stop().await;
}
