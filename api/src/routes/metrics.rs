//! `GET /metrics`: what this process counts, in Prometheus' text format 0.0.4. No database is asked.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/metrics", get(show))
}

async fn show(State(state): State<ApiState>) -> Response {
    let text = (state.exposition)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
