//! `GET /workers`: the processes of the service, and what each runs.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/workers", get(list))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "data": state.engine.workers().await? })))
}
