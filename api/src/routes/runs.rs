//! `POST /workflows/{name}/runs`, `GET /runs`, `GET /runs/{id}`, `POST /runs/{id}/cancel`.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use engine::{Run, RunCursor, RunDetail, RunFilter, RunId, RunState, StepKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use workflows::catalog::{self, SnapshotRow};

use crate::body;
use crate::once::{Asked, accepted};
use crate::page::{self, Limit, Page};
use crate::problem::Problem;
use crate::state::ApiState;

/// Longest result that is shown.
const RESULT_BYTES: usize = 4 << 10;

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/workflows/{name}/runs", post(start))
        .route("/runs", get(list))
        .route("/runs/{id}", get(show))
        .route("/runs/{id}/cancel", post(cancel))
}

#[derive(Deserialize)]
struct ListQuery {
    workflow: Option<String>,
    /// One or several, separated by commas.
    state: Option<String>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    /// Part of the id, the unique key, the error or the parameters.
    text: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Json<Page<Run>>, Problem> {
    let limit = Limit::of(query.limit)?;
    if [&query.workflow, &query.text].into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(Problem::bad_request("VALIDATION_ERROR", "no run has this character in its text"));
    }
    let states = query.state.iter().flat_map(|states| states.split(',')).map(state_named).collect::<Result<_, _>>()?;
    let after = query.cursor.as_deref().map(cursor).transpose()?;
    let filter = RunFilter { workflow: query.workflow, states, since: query.since, until: query.until, text: query.text, after };
    let runs = state.engine.runs(&filter, u32::try_from(limit.and_one_more()).unwrap_or(u32::MAX)).await?;
    Ok(Json(Page::of(runs, limit, |run| format!("{}/{}", run.created_at.timestamp_micros(), run.id))))
}

fn state_named(name: &str) -> Result<RunState, Problem> {
    let found = RunState::ALL.iter().copied().find(|state| state.as_str() == name);
    found.ok_or_else(|| {
        let known = RunState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ");
        Problem::bad_request("VALIDATION_ERROR", format!("there is no state `{name}`; known are: {known}"))
    })
}

fn cursor(cursor: &str) -> Result<RunCursor, Problem> {
    let bad = || Problem::bad_request("VALIDATION_ERROR", "this cursor is not one that GET /runs gave out");
    let (at, id) = page::place(cursor)?;
    let created_at = at.parse().ok().and_then(DateTime::from_timestamp_micros).ok_or_else(bad)?;
    Ok(RunCursor { created_at, id: id.parse().map_err(|_| bad())? })
}

async fn cancel(State(state): State<ApiState>, Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let run: RunId = id.parse().map_err(|_| missing(&id))?;
    state.engine.cancel(run, &asked.actor).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "runId": run, "cancelRequested": true }))).into_response())
}

fn missing(id: &str) -> Problem {
    Problem::not_found("RUN_NOT_FOUND", format!("there is no run {id}"))
}

async fn start(State(state): State<ApiState>, Path(name): Path<String>, asked: Asked, body: Bytes) -> Result<Response, Problem> {
    let request = workflows::prepare(&state.services, &name, body::value(&body)?).await?;
    let started = state.engine.start_once(&request, asked.key(&body).as_ref(), &asked.actor).await?;
    Ok(accepted(started, json!({ "state": "queued" })))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    detail: RunDetail,
    /// What it came to, once it has succeeded.
    result: Option<Value>,
    /// The snapshot it published, if it did.
    snapshot: Option<SnapshotRow>,
}

async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<Shown>, Problem> {
    let run: RunId = id.parse().map_err(|_| missing(&id))?;
    let mut detail = state.engine.detail(run).await?.ok_or_else(|| missing(&id))?;
    let result = result(&detail);
    // Outputs of steps are their own business, and long.
    detail.steps.iter_mut().for_each(|step| step.output = None);
    let snapshot = catalog::of_run(&state.services.control, run.0).await?;
    Ok(Json(Shown { detail, result, snapshot }))
}

/// What the run came to: the output of its last step, unless that is long.
fn result(detail: &RunDetail) -> Option<Value> {
    let last = detail.steps.iter().rev().find(|step| step.kind == StepKind::Task)?;
    let output = last.output.clone().filter(|_| detail.run.state == RunState::Succeeded)?;
    (output.to_string().len() <= RESULT_BYTES).then_some(output)
}
