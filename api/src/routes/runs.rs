//! `POST /workflows/{name}/runs`, `GET /runs/{id}`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::{RunDetail, RunId, StartError};
use serde::Serialize;
use serde_json::{Value, json};
use workflows::BadParams;
use workflows::catalog::{self, SnapshotRow};

use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/workflows/{name}/runs", post(start)).route("/runs/{id}", get(show))
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
        BadParams::Database(source) => Problem::unavailable("the indexed database does not answer", &source),
    }
}

fn not_started(error: StartError) -> Problem {
    match error {
        StartError::AlreadyRunning { run } => {
            Problem::new(StatusCode::CONFLICT, "ALREADY_RUNNING", format!("run {run} of this workflow is already under way")).with_run(run)
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
