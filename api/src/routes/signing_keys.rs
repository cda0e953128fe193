//! `GET /signing-keys`: the public keys whose signatures to believe, the active one first.
//!
//! Whoever learns them here trusts this connection; readers should pin them by another way, and pin both live ones.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use snapshot::sign::KeyringError;

use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/signing-keys", get(list))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let Some(keyring) = state.services.signing else { return Ok(Json(json!({ "data": [] }))) };
    let keys = tokio::task::spawn_blocking(move || keyring.published()).await;
    let keys = keys.map_err(|error| Problem::unavailable("the keys cannot be read", &error))?;
    let keys = keys.map_err(|error: KeyringError| Problem::unavailable("the keys cannot be read", &error))?;
    Ok(Json(json!({ "data": keys })))
}
