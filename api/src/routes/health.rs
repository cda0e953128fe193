//! `/livez` (this process), `/readyz` (what it needs), `/version`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::problem::chain;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/version", get(version))
}

async fn livez() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz(State(state): State<ApiState>) -> Response {
    let checks = tokio::time::timeout(crate::PATIENCE, async {
        let control = sqlx::query("select 1").execute(&state.services.control).await.map(drop);
        let indexed = sqlx::query("select 1").execute(&state.services.indexed).await.map(drop);
        let bucket = state.services.store.check().await;
        [
            ("controlDatabase", control.err().map(|error| chain(&error))),
            ("indexedDatabase", indexed.err().map(|error| chain(&error))),
            ("bucket", bucket.err().map(|error| chain(&error))),
        ]
    });
    let Ok(checks) = checks.await else {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unavailable", "failed": ["timeout"] })))
            .into_response();
    };
    let failed: Vec<&str> = checks.iter().filter(|(_, error)| error.is_some()).map(|(name, _)| *name).collect();
    for (name, error) in &checks {
        if let Some(error) = error {
            tracing::warn!(check = name, error, "not ready");
        }
    }
    if failed.is_empty() {
        return Json(json!({ "status": "ok" })).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unavailable", "failed": failed }))).into_response()
}

async fn version() -> Json<serde_json::Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}
