//! `GET /workflows`, `GET /queues`, and `POST …/{name}/{pause,resume}` of either: while paused nothing of it is begun.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::{Pause, PauseTarget, Queue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body;
use crate::once::Asked;
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/workflows", get(workflows))
        .route("/workflows/{name}/pause", post(pause_workflow))
        .route("/workflows/{name}/resume", post(resume_workflow))
        .route("/queues", get(queues))
        .route("/queues/{name}/pause", post(pause_queue))
        .route("/queues/{name}/resume", post(resume_queue))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    reason: Option<String>,
}

async fn workflows(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let names = state.engine.catalog().names();
    Ok(listed(names, "workflow", state.engine.pauses().await?))
}

async fn queues(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    Ok(listed(Queue::ALL.iter().map(|queue| queue.as_str()), "queue", state.engine.pauses().await?))
}

/// Each name with its pause; one of a workflow that this version does not know is shown as well.
fn listed(names: impl Iterator<Item = &'static str>, kind: &str, pauses: Vec<Pause>) -> Json<Value> {
    let mut pauses: Vec<Pause> = pauses.into_iter().filter(|pause| pause.kind == kind).collect();
    let mut data: Vec<Value> = names
        .map(|name| {
            let at = pauses.iter().position(|pause| pause.name == name);
            json!({ "name": name, "pause": at.map(|at| pauses.swap_remove(at)) })
        })
        .collect();
    data.extend(pauses.into_iter().map(|pause| json!({ "name": pause.name.clone(), "pause": pause })));
    Json(json!({ "data": data }))
}

fn queue(name: &str) -> Result<PauseTarget, Problem> {
    let found = Queue::ALL.iter().find(|queue| queue.as_str() == name);
    found.map(|queue| PauseTarget::Queue(*queue)).ok_or_else(|| {
        let known = Queue::ALL.iter().map(|queue| queue.as_str()).collect::<Vec<_>>().join(", ");
        Problem::not_found("QUEUE_NOT_FOUND", format!("there is no queue `{name}`; known are: {known}"))
    })
}

async fn pause(state: &ApiState, target: &PauseTarget, asked: &Asked, body: &[u8]) -> Result<Json<Value>, Problem> {
    let sent: PauseBody = body::object(body)?;
    let reason = body::reason(sent.reason.as_deref())?;
    state.engine.pause(target, &reason, &asked.actor).await?;
    Ok(Json(json!({ "paused": target.to_string(), "reason": reason })))
}

async fn resume(state: &ApiState, target: &PauseTarget, asked: &Asked) -> Result<Json<Value>, Problem> {
    state.engine.resume(target, &asked.actor).await?;
    Ok(Json(json!({ "resumed": target.to_string() })))
}

async fn pause_workflow(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    asked: Asked,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    pause(&state, &PauseTarget::Workflow(name), &asked, &body).await
}

async fn resume_workflow(State(state): State<ApiState>, Path(name): Path<String>, asked: Asked) -> Result<Json<Value>, Problem> {
    let unknown = |name: &str| !name.chars().all(|c| c.is_ascii_graphic());
    if unknown(&name) {
        return Err(Problem::not_found("WORKFLOW_NOT_FOUND", "there is no such workflow"));
    }
    resume(&state, &PauseTarget::Workflow(name), &asked).await
}

async fn pause_queue(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    asked: Asked,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    pause(&state, &queue(&name)?, &asked, &body).await
}

async fn resume_queue(State(state): State<ApiState>, Path(name): Path<String>, asked: Asked) -> Result<Json<Value>, Problem> {
    resume(&state, &queue(&name)?, &asked).await
}
