//! What `./run bench engine` measures of plain apalis-workflow: the runs of `engine_bench`, as its documentation writes such
//! flows, on the same database. `apalis-bench <what> [count]` prints one JSON array of numbers.
//!
//! It does less for it: a step is not fenced, a failed child is dropped without a word, there is no backoff, and a run is no row.
use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage};
use apalis_workflow::SteppedFlow;
use tokio::{sync::mpsc, time::timeout};

/// How long anything may take before the benchmark is broken.
const PATIENCE: Duration = Duration::from_secs(240);
/// Steps at once, as the engine's own measurement has.
const CONCURRENCY: usize = 16;

/// Children of the flow that measures steps a second.
const STEADY: u64 = 2000;

fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A queue that no earlier measurement has left anything in.
fn queue() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("plain-{}-{}", micros(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A storage as apalis-postgres shows it: notified of tasks, and looking every second.
macro_rules! storage {
    ($pool:expr, $queue:expr) => {
        PostgresStorage::new($pool)
            .with_config(Config::default().queue($queue.as_str()))
            .with_pubsub()
            .poll_with_interval(Duration::from_secs(1))
    };
}

/// Seconds from asking for a flow of so many children and their join to its end.
async fn fan(pool: &PgPool, children: u64) -> Result<f64, BoxDynError> {
    let queue = queue();
    let (ended, mut end) = mpsc::unbounded_channel::<usize>();
    let flow = SteppedFlow::new("fan")
        .and_then(|children: u64| async move { Ok::<_, BoxDynError>((0..children).collect::<Vec<u64>>()) })
        .filter_map(|part: u64| async move { Some(part) })
        .and_then(move |parts: Vec<u64>| {
            let ended = ended.clone();
            async move { ended.send(parts.len()).map_err(BoxDynError::from) }
        });
    let mut backend = storage!(pool, queue);
    let asked = Instant::now();
    backend.push(children).await?;
    let worker = WorkerBuilder::new(queue.as_str()).backend(backend).concurrency(CONCURRENCY).build(flow);
    tokio::select! {
        ended = worker.run() => Err(format!("the worker ended: {ended:?}").into()),
        joined = timeout(PATIENCE, end.recv()) => match joined? {
            Some(joined) if joined as u64 == children => Ok(asked.elapsed().as_secs_f64()),
            joined => Err(format!("{joined:?} of {children} children were joined").into()),
        },
    }
}

/// Milliseconds from asking for a flow to the begin of its step in an idle worker.
async fn pickups(pool: &PgPool, count: usize) -> Result<Vec<f64>, BoxDynError> {
    let queue = queue();
    let (begun, mut begins) = mpsc::unbounded_channel::<u64>();
    let flow = SteppedFlow::new("one").and_then(move |_: u64| {
        let begun = begun.clone();
        async move { begun.send(micros()).map_err(BoxDynError::from) }
    });
    let mut asking = PostgresStorage::new(pool).with_config(Config::default().queue(queue.as_str()));
    let worker = WorkerBuilder::new(queue.as_str()).backend(storage!(pool, queue)).concurrency(CONCURRENCY).build(flow);
    let ask = async {
        let mut values = Vec::new();
        // The first makes sure that the worker listens.
        for _ in 0..=count {
            tokio::time::sleep(Duration::from_millis(75)).await;
            let asked = micros();
            asking.push(asked).await?;
            let begun = timeout(PATIENCE, begins.recv()).await?.ok_or("the flow is gone")?;
            values.push((begun.saturating_sub(asked)) as f64 / 1e3);
        }
        Ok(values.split_off(1))
    };
    tokio::select! {
        ended = worker.run() => Err(format!("the worker ended: {ended:?}").into()),
        values = ask => values,
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().ok_or("say what: pickup, fanout or steps")?;
    let count: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    PostgresStorage::setup(&pool).await?;
    let mut values = Vec::new();
    match what.as_str() {
        "pickup" => values = pickups(&pool, count).await?,
        "fanout" => {
            for _ in 0..count {
                values.push(fan(&pool, 1000).await?);
            }
        }
        "steps" => {
            for _ in 0..count {
                values.push(STEADY as f64 / fan(&pool, STEADY).await?);
            }
        }
        other => return Err(format!("there is no measurement `{other}`").into()),
    }
    Ok(writeln!(std::io::stdout(), "{values:?}")?)
}
