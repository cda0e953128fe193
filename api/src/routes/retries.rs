//! `POST /runs/{id}/retry` and `POST /runs/retry`: doing again what failed, one run or all that match.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use engine::{RetryFrom, RunId};
use serde::Deserialize;
use serde_json::json;
use workflows::retry_runs;

use crate::body;
use crate::once::{Asked, accepted};
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/runs/{id}/retry", post(one)).route("/runs/retry", post(matching))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody {
    #[serde(default = "failed_step")]
    from: RetryFrom,
}

fn failed_step() -> RetryFrom {
    RetryFrom::FailedStep
}

async fn one(State(state): State<ApiState>, Path(id): Path<String>, asked: Asked, body: Bytes) -> Result<Response, Problem> {
    let run: RunId = id.parse().map_err(|_| Problem::not_found("RUN_NOT_FOUND", format!("there is no run {id}")))?;
    let sent: RetryBody = body::object(&body)?;
    let retried = state.engine.retry_once(run, sent.from, asked.key(&body).as_ref(), &asked.actor).await?;
    Ok(accepted(retried, json!({ "retryOf": run, "from": sent.from })))
}

/// A run of its own, which goes through the matching runs on behalf of who asks.
async fn matching(State(state): State<ApiState>, asked: Asked, body: Bytes) -> Result<Response, Problem> {
    let params = body::value(&body)?;
    let request = workflows::prepare(&state.services, retry_runs::NAME, params).await?;
    let started = state.engine.start_once(&request, asked.key(&body).as_ref(), &asked.actor).await?;
    Ok(accepted(started, json!({ "state": "queued", "params": request.params })))
}
