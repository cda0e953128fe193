//! HTTP in, JSON out.
//!
//! Routes stand at the root and, the same, under `/api`. Reading snapshots needs no key. But for programs of this machine, where the service
//! listens on loopback alone, reading runs, schedules and workers needs one of any scope, and whatever changes something one of scope operator.

pub mod auth;
mod body;
mod measure;
mod name;
mod once;
mod page;
mod problem;
mod range;
mod refusal;
mod routes;
mod state;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use chain::Ingest;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

pub use measure::describe_metrics;
pub use problem::Problem;
pub use routes::archives::Splices;
pub use state::{ApiState, Delivery, Exposition};

/// Bodies of our own routes are small; what a node sends is not (see `routes::observer`).
const BODY_BYTES: usize = 1 << 20;
/// How long a request may wait for the database or the bucket before the answer is 504.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// All routes of the `api` role.
pub fn router(state: ApiState) -> Router {
    let open = Router::new()
        .merge(routes::snapshots::router())
        .merge(routes::diff::router())
        .merge(routes::status::router())
        .merge(routes::signing_keys::router())
        .merge(routes::health::router())
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    let operations = Router::new()
        .merge(routes::runs::router())
        .merge(routes::retries::router())
        .merge(routes::events::router())
        .merge(routes::schedules::router())
        .merge(routes::pauses::router())
        .merge(routes::workers::router())
        .merge(routes::audit::router())
        .merge(routes::decisions::router())
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(state.clone(), auth::guard_operations));
    let routes = open.merge(operations);
    let mut all = Router::new().nest("/api", routes.clone()).merge(routes).merge(routes::networks::router());
    all = all.merge(match state.delivery {
        Delivery::Service => routes::objects::router(),
        Delivery::Bucket => routes::archives::router(),
    });
    let all = all.layer(axum::middleware::from_fn_with_state(state.clone(), auth::guard));
    all.with_state(state)
}

/// What every process shows of itself, whatever its roles.
pub fn metrics(state: ApiState) -> Router {
    let routes = routes::metrics::router();
    let guard = axum::middleware::from_fn_with_state(state.clone(), auth::guard_operations);
    Router::new().nest("/api", routes.clone()).merge(routes).layer(guard).with_state(state)
}

/// The routes of the `ingest` role: what a stacks-node posts to its event observer.
pub fn observer(ingest: Arc<Ingest>) -> Router {
    routes::observer::router(ingest)
}

/// What every route shares: problem answers, request ids, traces. Call it once, last.
pub fn finish(router: Router) -> Router {
    router
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::middleware::map_response(problem::shape))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(axum::middleware::from_fn(trace::trace))
        .layer(axum::middleware::from_fn(measure::measure))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}
