//! The log of all runs as a stream: nothing lost, nothing twice, and no connection held for waiting.
use std::time::Duration;

use engine::{Ctx, EventCursor, Follower, RunId, StartRun, StepError, Workflow};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::engine_support::{Bench, poll};
use crate::support::wait_until;

const SOON: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

async fn noop(_: Ctx<()>, _: Value) -> Result<(), StepError> {
    Ok(())
}

async fn bench() -> Bench<()> {
    Bench::new(|| vec![Workflow::named("w", 1).step("only", noop)]).await
}

async fn start(bench: &Bench<()>) -> RunId {
    bench.client.start(&StartRun::new("w", json!({}))).await.unwrap()
}

const INSERT: &str = "insert into snapshots.event (run_id, level, kind, data) values ($1, 'info', $2, '{}')";

/// Kinds of the next events, and the place after them.
async fn next(follower: &mut Follower, patience: Duration) -> (Vec<String>, Option<EventCursor>) {
    let page = follower.next(patience).await.unwrap();
    let place = page.last().map(|(place, _)| place.clone());
    (page.into_iter().map(|(_, event)| event.kind).collect(), place)
}

#[tokio::test]
async fn what_commits_late_below_what_was_read_is_read_once_even_by_a_reader_who_left_meanwhile() {
    let bench = bench().await;
    let run = start(&bench).await;
    let mut follower = bench.client.follow(None, None).await.unwrap();
    let mut late = bench.pool.begin().await.unwrap();
    sqlx::query(INSERT).bind(run).bind("late").execute(&mut *late).await.unwrap();
    let mut never = bench.pool.begin().await.unwrap();
    sqlx::query(INSERT).bind(run).bind("never").execute(&mut *never).await.unwrap();
    sqlx::query(INSERT).bind(run).bind("early").execute(&bench.pool).await.unwrap();
    let (kinds, place) = next(&mut follower, LONG).await;
    assert_eq!(kinds, ["early"]);
    drop(follower);
    let place: EventCursor = place.unwrap().to_string().parse().unwrap();
    never.rollback().await.unwrap();

    let mut back = bench.client.follow(None, Some(place.clone())).await.unwrap();
    assert!(next(&mut back, SOON).await.0.is_empty());
    late.commit().await.unwrap();
    let (kinds, after) = next(&mut back, LONG).await;
    assert_eq!(kinds, ["late"]);
    let mut again = bench.client.follow(None, after).await.unwrap();
    assert!(next(&mut again, SOON).await.0.is_empty(), "nothing is sent twice");
    let mut other = bench.client.follow(None, Some(place)).await.unwrap();
    assert_eq!(next(&mut other, LONG).await.0, ["late"], "each reader has a place of its own");

    // Once nothing of that time is under way any more, in no database of the server, what was rolled back is not waited for.
    wait_until(LONG, "what was rolled back is not waited for", async || {
        sqlx::query(INSERT).bind(run).bind("more").execute(&bench.pool).await.unwrap();
        !next(&mut back, LONG).await.1.unwrap().to_string().contains('.')
    })
    .await;
}

#[tokio::test]
async fn a_reader_of_one_run_reads_it_from_its_beginning_and_nothing_else() {
    let bench = bench().await;
    let (run, other) = (start(&bench).await, start(&bench).await);
    for no in 0..1200 {
        let (run, kind) = if no % 2 == 0 { (run, format!("mine.{no}")) } else { (other, "other".to_owned()) };
        sqlx::query(INSERT).bind(run).bind(kind).execute(&bench.pool).await.unwrap();
    }
    let mut follower = bench.client.follow(Some(run), None).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 601 {
        kinds.extend(next(&mut follower, LONG).await.0);
    }
    let expected: Vec<String> = (0..1200).step_by(2).map(|no| format!("mine.{no}")).collect();
    assert_eq!((kinds[0].as_str(), &kinds[1..]), ("run.queued", expected.as_slice()));
    assert!(next(&mut follower, SOON).await.0.is_empty());
}

#[tokio::test]
async fn forty_who_wait_share_a_connection_and_all_hear_of_the_end() {
    let bench = bench().await;
    let runs = join_all((0..40).map(|_| start(&bench))).await;
    let client = bench.client.clone();
    let waiting = tokio::spawn(async move {
        let ended = join_all(runs.iter().map(|run| client.wait(*run))).await;
        ended.into_iter().all(|run| run.unwrap().state.is_finished())
    });
    let listening =
        "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%snapshots_run%'";
    let count = async || sqlx::query_scalar::<_, i64>(listening).fetch_one(&bench.pool).await.unwrap();
    poll("somebody listens", async || count().await > 0).await;
    assert_eq!(count().await, 1);
    let worker = bench.worker(());
    assert!(waiting.await.unwrap());
    poll("nobody waits and nobody listens", async || count().await == 0).await;
    worker.stop().await;
}
