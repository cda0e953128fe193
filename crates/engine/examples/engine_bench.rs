//! What `./run bench engine` measures inside a process: runs that do nothing, so that all the time is the engine's.
//!
//! `engine_bench <what> [count]` against the database in `DATABASE_URL`; prints one JSON array of numbers. It knows no target and
//! judges nothing. Workers that are to be killed are processes of their own: this program again, as `engine_bench worker`.
use std::{
    collections::HashMap,
    io::Write,
    process::{Child, Command, Stdio},
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use engine::{
    BoxError, Catalog, Client, Ctx, Engine, EngineConfig, Queue, RunId, RunState, Shutdown, StartRun, StepError, StepId,
    Workflow,
    statements::{self, Claimant},
};
use serde_json::{Value, json};
use sqlx::PgPool;

type Outcome<T> = Result<T, BoxError>;

/// How long anything may take before the benchmark is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections: as many as a service has.
const CONNECTIONS: u32 = 16;

async fn noop(_: Ctx<()>, input: Value) -> Result<Value, StepError> {
    Ok(input)
}

async fn count(_: Ctx<()>, params: Value) -> Result<Vec<u64>, StepError> {
    Ok((0..params["children"].as_u64().unwrap_or(0)).collect())
}

async fn part(_: Ctx<()>, n: u64) -> Result<u64, StepError> {
    Ok(n)
}

async fn join(_: Ctx<()>, parts: Vec<u64>) -> Result<usize, StepError> {
    Ok(parts.len())
}

/// Never ends the first time: its worker is killed.
async fn hang_once(ctx: Ctx<()>, _: Value) -> Result<(), StepError> {
    if ctx.attempt() == 1 {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Computes on a blocking thread and never looks up, as a compressor does in the middle of a block.
async fn deaf(ctx: Ctx<()>, _: Value) -> Result<u64, StepError> {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let _end = EndOnDrop(ended);
    ctx.blocking(move || {
        let mut sum = 0_u64;
        while !seen.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        Ok(sum)
    })
    .await
}

/// The thread is let go once the attempt is cut off; it must not slow down what comes after.
struct EndOnDrop(Arc<AtomicBool>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn workflows() -> Vec<Workflow<()>> {
    vec![
        Workflow::named("one", 1).step("only", noop),
        Workflow::named("fan", 1).step("plan", count).each("part", |parts: &Vec<u64>| parts.clone(), part).step("join", join),
        Workflow::named("hang", 1).step("only", hang_once),
        Workflow::named("deaf", 1).step("only", deaf),
    ]
}

/// A running engine of this process.
struct Worker {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), engine::EngineError>>,
}

impl Worker {
    fn start(pool: &PgPool, config: EngineConfig) -> Outcome<Self> {
        let engine = Engine::new(pool.clone(), (), workflows(), config)?;
        let shutdown = Shutdown::default();
        let task = tokio::spawn(engine.run(shutdown.clone()));
        Ok(Self { shutdown, task })
    }

    async fn stop(self) -> Outcome<()> {
        self.shutdown.soft.cancel();
        Ok(self.task.await??)
    }
}

struct Bench {
    pool: PgPool,
    client: Client,
}

impl Bench {
    async fn open() -> Outcome<Self> {
        let pool = engine::control_pool(&std::env::var("DATABASE_URL")?, CONNECTIONS).await?;
        engine::migrate(&pool).await?;
        let client = Client::new(pool.clone(), Catalog::of(&workflows())?);
        Ok(Self { pool, client })
    }

    async fn start(&self, workflow: &str, params: Value) -> Outcome<RunId> {
        Ok(self.client.start(&StartRun::new(workflow, params)).await?)
    }

    async fn ended(&self, run: RunId, expected: RunState) -> Outcome<()> {
        let ended = tokio::time::timeout(PATIENCE, self.client.wait(run)).await??;
        if ended.state == expected { Ok(()) } else { Err(format!("run {run} is {}: {:?}", ended.state, ended.error).into()) }
    }

    /// When attempt `no` of the run's only step began, once it has.
    async fn begun(&self, run: RunId, no: i32) -> Outcome<DateTime<Utc>> {
        let end = Instant::now() + PATIENCE;
        let sql = "select a.started_at from snapshots.attempt a join snapshots.step s on s.id = a.step_id \
             where s.run_id = $1 and a.no = $2";
        while Instant::now() < end {
            if let Some(at) = sqlx::query_scalar(sql).bind(run).bind(no).fetch_optional(&self.pool).await? {
                return Ok(at);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("attempt {no} of run {run} does not begin").into())
    }

    /// Seconds from the SIGKILL of the process that runs a step to the next attempt in another process.
    async fn takeover(&self) -> Outcome<f64> {
        let mut first = worker_process()?;
        let run = self.start("hang", json!({})).await?;
        self.begun(run, 1).await?;
        let mut second = worker_process()?;
        // Any moment between two renewals is as good as another.
        tokio::time::sleep(Duration::from_millis(2000 + u64::from(rand::random::<u16>()) % 2000)).await;
        let killed = Utc::now();
        first.kill()?;
        let begun = self.begun(run, 2).await?;
        self.ended(run, RunState::Succeeded).await?;
        second.kill()?;
        first.wait()?;
        second.wait()?;
        Ok((begun - killed).as_seconds_f64())
    }

    /// Milliseconds from asking for a run to the claim of its step by an idle worker.
    async fn pickup(&self) -> Outcome<f64> {
        tokio::time::sleep(Duration::from_millis(50 + u64::from(rand::random::<u16>()) % 100)).await;
        let asked = Utc::now();
        let run = self.start("one", json!({})).await?;
        Ok((self.begun(run, 1).await? - asked).as_seconds_f64() * 1e3)
    }

    /// Seconds from asking for the end of a run whose step looks at nothing to its end.
    async fn cancel(&self) -> Outcome<f64> {
        let run = self.start("deaf", json!({})).await?;
        self.begun(run, 1).await?;
        tokio::time::sleep(Duration::from_millis(u64::from(rand::random::<u16>()) % 1500)).await;
        let asked = Instant::now();
        self.client.cancel(run, "bench").await?;
        self.ended(run, RunState::Cancelled).await?;
        Ok(asked.elapsed().as_secs_f64())
    }

    /// Seconds from asking for a run of so many children to its end.
    async fn fan(&self, children: usize) -> Outcome<f64> {
        let asked = Instant::now();
        let run = self.start("fan", json!({ "children": children })).await?;
        self.ended(run, RunState::Succeeded).await?;
        Ok(asked.elapsed().as_secs_f64())
    }

    /// Milliseconds of one claim of a ready step; nobody else claims.
    async fn claim(&self, claimant: &Claimant) -> Outcome<f64> {
        let run = self.start("one", json!({})).await?;
        let step: StepId =
            sqlx::query_scalar("select id from snapshots.step where run_id = $1").bind(run).fetch_one(&self.pool).await?;
        let asked = Instant::now();
        statements::claim(&self.pool, step, claimant).await?.ok_or("the step was not claimed")?;
        Ok(asked.elapsed().as_secs_f64() * 1e3)
    }

    /// With an idle worker beside it, `count` times.
    async fn beside_worker(&self, config: EngineConfig, what: &str, count: usize) -> Outcome<Vec<f64>> {
        let worker = Worker::start(&self.pool, config)?;
        // Its loops have begun to listen once a first run has passed.
        self.fan(10).await?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(match what {
                "pickup" => self.pickup().await?,
                "cancel" => self.cancel().await?,
                "fanout" => self.fan(1000).await?,
                _ => STEADY as f64 / self.fan(STEADY).await?,
            });
        }
        worker.stop().await?;
        Ok(values)
    }

    async fn claims(&self, count: usize) -> Outcome<Vec<f64>> {
        let workflows: Vec<String> = self.client.catalog().names().map(str::to_owned).collect();
        let versions = vec![1; workflows.len()];
        let claimant = Claimant { worker: "bench".into(), lease: Duration::from_secs(60), workflows, versions };
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.claim(&claimant).await?);
        }
        Ok(values)
    }

    async fn takeovers(&self, count: usize) -> Outcome<Vec<f64>> {
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.takeover().await?);
        }
        Ok(values)
    }
}

/// Children of the run that measures steps a second.
const STEADY: usize = 5000;

/// Short steps are claimed and completed together; `TOGETHER` in the environment says how many.
fn together() -> Outcome<EngineConfig> {
    let most = std::env::var("TOGETHER").map_or(Ok(64), |most| most.parse())?;
    Ok(EngineConfig { io_slots: most, claims: HashMap::from([(Queue::Io, most)]), ..EngineConfig::default() })
}

fn worker_process() -> Outcome<Child> {
    Ok(Command::new(std::env::current_exe()?).arg("worker").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().ok_or("say what: worker, takeover, pickup, cancel, fanout, steps, together or claim")?;
    let count = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let bench = Bench::open().await?;
    let values = match what.as_str() {
        "worker" => return Ok(Worker::start(&bench.pool, EngineConfig::default())?.task.await??),
        "takeover" => bench.takeovers(count).await?,
        "claim" => bench.claims(count).await?,
        "steps" => bench.beside_worker(EngineConfig { io_slots: 16, ..EngineConfig::default() }, "steps", count).await?,
        "together" => bench.beside_worker(together()?, "steps", count).await?,
        "pickup" | "cancel" | "fanout" => bench.beside_worker(EngineConfig::default(), &what, count).await?,
        other => return Err(format!("there is no measurement `{other}`").into()),
    };
    Ok(writeln!(std::io::stdout(), "{}", json!(values))?)
}
