//! `POST /snapshots/{id}/retract`, `/publish` and `/pin`, `DELETE /snapshots/{id}/pin`: what an operator decides, with a reason.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use workflows::{catalog, decisions, publication};

use crate::auth::Actor;
use crate::body;
use crate::name::is_plain;
use crate::once::{Asked, accepted};
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/snapshots/{id}/retract", post(retract))
        .route("/snapshots/{id}/publish", post(publish))
        .route("/snapshots/{id}/pin", post(pin).delete(unpin))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    reason: Option<String>,
    /// `publish`: also if a newer one is published.
    #[serde(default)]
    back: bool,
}

#[derive(Deserialize)]
struct NetworkQuery {
    network: Option<String>,
}

async fn retract(
    state: State<ApiState>,
    id: Path<String>,
    query: Query<NetworkQuery>,
    asked: Asked,
    body: Bytes,
) -> Result<Response, Problem> {
    decide(publication::RETRACT, (&state, &id, query.network.as_deref()), &asked, &body).await
}

async fn publish(
    state: State<ApiState>,
    id: Path<String>,
    query: Query<NetworkQuery>,
    asked: Asked,
    body: Bytes,
) -> Result<Response, Problem> {
    decide(publication::PUBLISH, (&state, &id, query.network.as_deref()), &asked, &body).await
}

async fn decide(
    workflow: &str,
    (state, id, network): (&ApiState, &str, Option<&str>),
    asked: &Asked,
    bytes: &Bytes,
) -> Result<Response, Problem> {
    let wanted: Wanted = body::object(bytes)?;
    let reason = body::reason(wanted.reason.as_deref())?;
    let network = known(state, id, network).await?;
    let params = json!({ "id": id, "network": network, "reason": reason, "actor": asked.actor, "back": wanted.back });
    let request = workflows::prepare(&state.services, workflow, params).await?;
    let started = state.engine.start_once(&request, asked.key(bytes).as_ref(), &asked.actor).await?;
    Ok(accepted(started, json!({ "state": "queued" })))
}

async fn pin(
    State(state): State<ApiState>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Query(query): Query<NetworkQuery>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let wanted: Wanted = body::object(&body)?;
    let reason = body::reason(wanted.reason.as_deref())?;
    set_pin(&state, (&id, query.network.as_deref()), Some(&reason), &actor.0).await
}

async fn unpin(
    State(state): State<ApiState>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Query(query): Query<NetworkQuery>,
) -> Result<Json<Value>, Problem> {
    set_pin(&state, (&id, query.network.as_deref()), None, &actor.0).await
}

async fn set_pin(
    state: &ApiState,
    snapshot: (&str, Option<&str>),
    reason: Option<&str>,
    actor: &str,
) -> Result<Json<Value>, Problem> {
    let (id, network) = snapshot;
    let network = known(state, id, network).await?;
    decisions::pin(&state.services.control, (&network, id), reason, actor).await?;
    Ok(Json(json!({ "network": network, "id": id, "pinned": reason.is_some(), "reason": reason })))
}

/// The network of a snapshot that is published or was taken back.
async fn known(state: &ApiState, id: &str, network: Option<&str>) -> Result<String, Problem> {
    let plain = is_plain(id) && network.is_none_or(is_plain);
    let rows = if plain { catalog::known(&state.services.control, network, id).await? } else { Vec::new() };
    match rows.as_slice() {
        [] => Err(Problem::not_found("SNAPSHOT_NOT_FOUND", format!("there is no published or retracted snapshot {id}"))),
        [row] => Ok(row.network.clone()),
        _ => Err(Problem::bad_request("VALIDATION_ERROR", "several networks have a snapshot of this id: add ?network=")),
    }
}
