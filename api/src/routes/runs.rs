//! `POST /workflows/{name}/runs`, `GET /runs`, `GET /runs/{id}`, `POST /runs/{id}/cancel`.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use chrono::{DateTime, Utc};
use engine::{CancelError, Run, RunCursor, RunDetail, RunFilter, RunId, RunState, StartError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use workflows::BadParams;
use workflows::catalog::{self, SnapshotRow};

use crate::auth::Actor;
use crate::page::{self, Limit, Page};
use crate::problem::Problem;
use crate::state::ApiState;

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

async fn cancel(
    State(state): State<ApiState>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("RUN_NOT_FOUND", format!("there is no run {id}"));
    let run: RunId = id.parse().map_err(|_| missing())?;
    match state.engine.cancel(run, &actor.0).await {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(json!({ "runId": run, "cancelRequested": true }))).into_response()),
        Err(CancelError::UnknownRun { .. }) => Err(missing()),
        Err(error @ CancelError::Finished { .. }) => {
            Err(Problem::new(StatusCode::CONFLICT, "ALREADY_FINISHED", error.to_string()))
        }
        Err(CancelError::Database(error)) => Err(error.into()),
    }
}

async fn start(State(state): State<ApiState>, Path(name): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let params: Value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request("INVALID_JSON", format!("the body is not JSON: {error}")))?,
    };
    let request = workflows::prepare(&state.services, &name, params).await.map_err(bad_params)?;
    let run = state.engine.start(&request).await.map_err(not_started)?;
    let location = format!("/runs/{run}");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(json!({ "runId": run, "state": "queued" }))).into_response())
}

fn bad_params(error: BadParams) -> Problem {
    match error {
        BadParams::UnknownWorkflow { .. } => Problem::not_found("WORKFLOW_NOT_FOUND", error.to_string()),
        BadParams::Params { .. } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", error.to_string()),
        BadParams::Nothing { .. } => Problem::new(StatusCode::CONFLICT, "NOTHING_TO_DO", error.to_string()),
        BadParams::Database(source) => Problem::unavailable("the indexed database does not answer", &source),
    }
}

fn not_started(error: StartError) -> Problem {
    match error {
        StartError::AlreadyRunning { run } => {
            Problem::new(StatusCode::CONFLICT, "ALREADY_RUNNING", format!("run {run} of this workflow is already under way"))
                .with_run(run)
        }
        StartError::UnknownWorkflow { .. } => Problem::not_found("WORKFLOW_NOT_FOUND", error.to_string()),
        StartError::BadPriority { .. } => Problem::bad_request("VALIDATION_ERROR", error.to_string()),
        StartError::Database(source) => source.into(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    detail: RunDetail,
    /// The snapshot it published, if it did.
    snapshot: Option<SnapshotRow>,
}

async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<Shown>, Problem> {
    let missing = || Problem::not_found("RUN_NOT_FOUND", format!("there is no run {id}"));
    let run: RunId = id.parse().map_err(|_| missing())?;
    let mut detail = state.engine.detail(run).await?.ok_or_else(missing)?;
    // Outputs are the steps' own business, and long.
    detail.steps.iter_mut().for_each(|step| step.output = None);
    let snapshot = catalog::of_run(&state.services.control, run.0).await?;
    Ok(Json(Shown { detail, snapshot }))
}
