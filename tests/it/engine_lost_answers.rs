//! What took effect without its worker hearing of it, since the connection broke in between: claims, and fetches of doorbells.
use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use engine::{
    Ctx, Queue, RunId, RunState, StartRun, StepError, Workflow,
    statements::{self, Claimed},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::{
    engine_support::{Bench, poll},
    support::wait_until,
};

struct Gate {
    begun: AtomicUsize,
    open: Semaphore,
}

async fn waits(ctx: Ctx<Gate>, input: Value) -> Result<Value, StepError> {
    ctx.services().begun.fetch_add(1, Ordering::SeqCst);
    let _pass = ctx.services().open.acquire().await.map_err(StepError::fail)?;
    Ok(input)
}

fn one_step() -> Vec<Workflow<Gate>> {
    vec![Workflow::named("one", 1).step("only", waits)]
}

/// From now on claims fail, but those of [`claim_unheard`].
const CUT: &str = "create function cut() returns trigger language plpgsql as $$ begin
    if coalesce(current_setting('test.unheard', true), '') = '' then raise exception 'the line was cut'; end if;
    return new; end $$;
    create trigger cut before insert on snapshots.attempt for each row execute function cut()";

/// Claims the step of `run` in the name of the only worker, which does not hear of it.
async fn claim_unheard(bench: &Bench<Gate>, run: RunId) -> Claimed {
    let options = bench.pool.connect_options().as_ref().clone().options([("test.unheard", "yes")]);
    let pool = PgPool::connect_with(options).await.unwrap();
    let worker: String = sqlx::query_scalar("select id from snapshots.worker").fetch_one(&pool).await.unwrap();
    let step = sqlx::query_scalar("select id from snapshots.step where run_id = $1").bind(run).fetch_one(&pool).await.unwrap();
    let claimed = statements::claim(&pool, step, &bench.claimant(&worker, bench.config.lease)).await.unwrap();
    pool.close().await;
    claimed.expect("nobody else can claim it")
}

async fn gives_back_what_it_never_heard_of(claims: usize) {
    let mut bench = Bench::new(one_step).await;
    // Longer than the test may take: nothing expires.
    bench.config.lease = Duration::from_secs(120);
    bench.config.doorbell_lost_after = Duration::from_millis(200);
    bench.config.claims = HashMap::from([(Queue::Io, claims)]);
    let start = async || bench.client.start(&StartRun::new("one", json!(1))).await.unwrap();
    let worker = bench.worker(Gate { begun: AtomicUsize::new(0), open: Semaphore::new(0) });
    let held = start().await;
    poll("the first step runs", async || worker.services.begun.load(Ordering::SeqCst) == 1).await;
    sqlx::raw_sql(CUT).execute(&bench.pool).await.unwrap();
    let lost = start().await;
    let lease = claim_unheard(&bench, lost).await.lease();
    let next = start().await;
    let outcome = "select outcome from snapshots.attempt where step_id = $1 and lease_token = $2";
    poll("the step is given back", async || {
        let told: Option<String> =
            sqlx::query_scalar(outcome).bind(lease.step).bind(lease.token).fetch_one(&bench.pool).await.unwrap();
        told.as_deref() == Some("yielded")
    })
    .await;
    sqlx::raw_sql("drop function cut cascade").execute(&bench.pool).await.unwrap();
    worker.services.open.add_permits(3);
    for (run, attempts) in [(held, 1), (lost, 2), (next, 1)] {
        let detail = bench.finished(run).await;
        assert_eq!((detail.run.state, detail.attempts.len()), (RunState::Succeeded, attempts), "{detail:#?}");
        assert!(detail.attempts.iter().all(|attempt| attempt.no == 1), "a lost answer cost an attempt: {detail:#?}");
    }
    assert_eq!(worker.services.begun.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_costs_its_step_no_attempt_and_no_wait_for_the_lease() {
    gives_back_what_it_never_heard_of(1).await;
}

#[tokio::test]
async fn a_claim_of_many_whose_answer_was_lost_costs_none_of_its_steps_an_attempt() {
    gives_back_what_it_never_heard_of(16).await;
}

#[tokio::test]
async fn doorbells_that_a_broken_pull_loop_had_fetched_are_heard_long_before_apalis_misses_the_loop() {
    let mut bench = Bench::new(one_step).await;
    // Not by the sweep's own word either.
    bench.config.doorbell_lost_after = Duration::from_secs(120);
    bench.config.io_slots = 1;
    let worker = bench.worker(Gate { begun: AtomicUsize::new(0), open: Semaphore::new(1) });
    poll("the process is known", async || loops(&bench).await == 1).await;
    sqlx::raw_sql(CUT).execute(&bench.pool).await.unwrap();
    let run = bench.client.start(&StartRun::new("one", json!(1))).await.unwrap();
    // Its doorbell was answered in vain; now it looks as if the answer to the fetch had been lost.
    let fetched = "update apalis.jobs j set status = 'Queued', lock_at = now(), done_at = null
         from snapshots.step s where s.doorbell = j.id and s.run_id = $1 and j.status = 'Done' and j.lock_by is not null";
    poll("the doorbell was fetched", async || {
        sqlx::query(fetched).bind(run).execute(&bench.pool).await.unwrap().rows_affected() == 1
    })
    .await;
    sqlx::raw_sql("drop function cut cascade").execute(&bench.pool).await.unwrap();
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()";
    poll("the pull loop begins anew", async || {
        // Whichever connection the pool gives may have been cut before.
        let _ = sqlx::query(kill).execute(&bench.pool).await;
        loops(&bench).await > 1
    })
    .await;
    let ended = async || bench.client.run(run).await.unwrap().unwrap().state == RunState::Succeeded;
    // apalis would take five heartbeats of ten seconds.
    wait_until(Duration::from_secs(30), "the step is heard of", ended).await;
    worker.stop().await;
}

/// Pull loops of queue `io` that ever began.
async fn loops(bench: &Bench<Gate>) -> i64 {
    let sql = "select count(*) from apalis.workers where id like '%/io/%'";
    loop {
        if let Ok(count) = sqlx::query_scalar(sql).fetch_one(&bench.pool).await {
            return count;
        }
    }
}
