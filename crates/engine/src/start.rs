//! Starting a run: the run, all its steps but the children, and the first doorbells, in the caller's transaction.
//! Invariant: of two starts with one unique key at most one run is unfinished, whatever transactions they sit in.
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    catalog::{Catalog, Definition},
    consequence, doorbell,
    error::StartError,
    model::{Level, RunId, StepId},
    statements,
    trace::Asking,
};

/// What to start.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// The workflow's name.
    pub workflow: String,
    /// The input of its first steps.
    pub params: Value,
    /// With a key, a start is refused while a run of the workflow with the same key is unfinished.
    pub unique_key: Option<String>,
    /// 0..=1000, greater goes first, strictly.
    pub priority: i32,
    /// The run that starts this one.
    pub parent: Option<RunId>,
}

impl StartRun {
    /// A run of `workflow` without a unique key, at priority 0.
    #[must_use]
    pub fn new(workflow: impl Into<String>, params: Value) -> Self {
        Self { workflow: workflow.into(), params, unique_key: None, priority: 0, parent: None }
    }

    /// Refuses a second unfinished run with this key.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }
}

/// The schedule a run comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick<'a> {
    pub(crate) schedule: &'a str,
    /// None when somebody ran the schedule by hand.
    pub(crate) fire_at: Option<DateTime<Utc>>,
}

pub(crate) async fn start(
    conn: &mut PgConnection,
    catalog: &Catalog,
    request: &StartRun,
    tick: Option<Tick<'_>>,
) -> Result<RunId, StartError> {
    let definition = catalog.get(&request.workflow).ok_or_else(|| catalog.unknown(&request.workflow))?;
    if !(0..=1000).contains(&request.priority) {
        return Err(StartError::BadPriority { priority: request.priority });
    }
    let mut asking = Asking::begin(definition.name);
    let run = insert_run(conn, definition, (request, asking.traceparent()), tick).await?;
    asking.run(&run);
    insert_steps(conn, definition, run, request.priority).await?;
    consequence::log(&mut *conn, (run, None), Level::Info, "run.queued", &json!({})).await?;
    Ok(run)
}

async fn insert_run(
    conn: &mut PgConnection,
    definition: &Definition,
    (request, traceparent): (&StartRun, Option<String>),
    tick: Option<Tick<'_>>,
) -> Result<RunId, StartError> {
    let insert = "insert into snapshots.run (id, workflow, version, params, unique_key, priority, parent_run_id, schedule, \
             fire_at, traceparent) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         on conflict (workflow, unique_key) where state in ('queued', 'running', 'retrying', 'paused') do nothing \
         returning id";
    let holder = "select id from snapshots.run where workflow = $1 and unique_key = $2 \
         and state in ('queued', 'running', 'retrying', 'paused')";
    loop {
        let inserted: Option<RunId> = sqlx::query_scalar(insert)
            .bind(Uuid::now_v7())
            .bind(definition.name)
            .bind(definition.version.cast_signed())
            .bind(&request.params)
            .bind(&request.unique_key)
            .bind(request.priority)
            .bind(request.parent)
            .bind(tick.map(|tick| tick.schedule))
            .bind(tick.and_then(|tick| tick.fire_at))
            .bind(&traceparent)
            .fetch_optional(&mut *conn)
            .await?;
        if let Some(run) = inserted {
            return Ok(run);
        }
        let running: Option<RunId> =
            sqlx::query_scalar(holder).bind(definition.name).bind(&request.unique_key).fetch_optional(&mut *conn).await?;
        // None: it ended between the two statements, so the key is free.
        if let Some(run) = running {
            return Err(StartError::AlreadyRunning { run });
        }
    }
}

async fn insert_steps(conn: &mut PgConnection, definition: &Definition, run: RunId, priority: i32) -> sqlx::Result<()> {
    let steps = &definition.steps;
    let column = |value: fn(&crate::workflow::StepSpec) -> i64| steps.iter().map(value).collect::<Vec<i64>>();
    let text = |value: fn(&crate::workflow::StepSpec) -> &'static str| steps.iter().map(value).collect::<Vec<_>>();
    let planned: Vec<(StepId, bool)> = sqlx::query_as(include_str!("sql/insert_steps.sql"))
        .bind(run)
        .bind(priority)
        .bind(text(|spec| spec.name))
        .bind(text(|spec| spec.kind.as_str()))
        .bind(text(|spec| spec.queue.as_str()))
        .bind(steps.iter().map(|spec| i32::try_from(spec.after.len()).unwrap_or(i32::MAX)).collect::<Vec<_>>())
        .bind(steps.iter().map(|spec| spec.attempts.cast_signed()).collect::<Vec<_>>())
        .bind(column(|spec| statements::millis(spec.backoff.base)))
        .bind(column(|spec| statements::millis(spec.backoff.cap)))
        .bind(steps.iter().map(|spec| spec.timeout.map(statements::millis)).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await?;
    let edges = steps.iter().flat_map(|spec| spec.after.iter().map(|after| (spec.name, *after)));
    let (names, after): (Vec<&str>, Vec<&str>) = edges.unzip();
    sqlx::query(include_str!("sql/insert_dependencies.sql")).bind(run).bind(names).bind(after).execute(&mut *conn).await?;
    let ready: Vec<StepId> = planned.into_iter().filter_map(|(step, ready)| ready.then_some(step)).collect();
    doorbell::ring(conn, &ready).await
}
