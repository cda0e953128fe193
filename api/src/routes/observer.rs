//! What a stacks-node posts to its event observer. 200 means stored: the node does not send it again.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chain::ingest::{ACKNOWLEDGED, Ingest, IngestError, Outcome};
use serde_json::{Value, json};

use crate::auth::guard_ingest;
use crate::problem::Problem;

/// Mainnet's genesis has more than 118,000 events in one body.
const BODY_BYTES: usize = 512 << 20;

pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    let routes = ACKNOWLEDGED.iter().fold(Router::new(), |router, path| router.route(path, post(take)));
    let routes = routes.route("/new_block", post(take));
    let routes = routes.layer(axum::middleware::from_fn(guard_ingest));
    routes.layer(DefaultBodyLimit::max(BODY_BYTES)).with_state(ingest)
}

async fn take(State(ingest): State<Arc<Ingest>>, uri: Uri, body: Bytes) -> Result<Response, Problem> {
    match ingest.apply(uri.path(), &body).await {
        Ok(outcome) => Ok(Json(answer(&outcome)).into_response()),
        Err(error) => Err(refuse(&error)),
    }
}

/// The original's answers, which its health checks read.
fn answer(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Ignored => json!({ "status": "ok" }),
        Outcome::Duplicate { height } => json!({ "status": "ok", "message": "duplicate", "block_height": height }),
        Outcome::Completed { height } => json!({ "status": "ok", "message": "completed", "block_height": height }),
        Outcome::Stored(stored) => json!({
            "status": "ok", "block_height": stored.height, "transactions": stored.transactions, "events": stored.events,
            "canonical": stored.canonical, "orphaned": stored.orphaned.len()
        }),
    }
}

fn refuse(error: &IngestError) -> Problem {
    if !error.is_malformed() {
        return Problem::unavailable("the block could not be stored", error);
    }
    tracing::error!(error = %crate::problem::chain(error), "a post of the node was refused");
    Problem::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", crate::problem::chain(error))
}
