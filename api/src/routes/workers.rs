//! `GET /workers`: the processes of the service, and what each runs. `POST /workers/{id}/{drain,resume}`: whether it takes more.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::once::Asked;
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/workers", get(list))
        .route("/workers/{id}/drain", post(drain))
        .route("/workers/{id}/resume", post(resume))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "data": state.engine.workers().await? })))
}

async fn drain(State(state): State<ApiState>, Path(id): Path<String>, asked: Asked) -> Result<Json<Value>, Problem> {
    tell(&state, id, true, &asked).await
}

async fn resume(State(state): State<ApiState>, Path(id): Path<String>, asked: Asked) -> Result<Json<Value>, Problem> {
    tell(&state, id, false, &asked).await
}

async fn tell(state: &ApiState, id: String, draining: bool, asked: &Asked) -> Result<Json<Value>, Problem> {
    // The database takes no text with NUL in it, and no id has one.
    if !id.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Problem::not_found("WORKER_NOT_FOUND", "there is no such worker"));
    }
    state.engine.drain(&id, draining, &asked.actor).await?;
    Ok(Json(json!({ "id": id, "draining": draining })))
}
