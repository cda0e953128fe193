//! `GET /snapshots/{id}/diff?from={other}`: what differs between two published snapshots.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use snapshot::diff::{self, Diff};
use snapshot::key::Key;
use snapshot::manifest::Manifest;

use super::snapshots::{published, stored_manifest};
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/snapshots/{id}/diff", get(show))
}

#[derive(Deserialize)]
struct DiffQuery {
    from: String,
    network: Option<String>,
}

async fn show(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<Diff>, Problem> {
    let from = manifest(&state, &query.from, query.network.as_deref()).await?;
    let to = manifest(&state, &id, query.network.as_deref()).await?;
    if from.network != to.network {
        let detail =
            format!("{} is of {} and {} of {}: compare snapshots of one network", query.from, from.network, id, to.network);
        return Err(Problem::bad_request("VALIDATION_ERROR", detail));
    }
    let schema_changed = from.schema.content_sha256 != to.schema.content_sha256 && schemas_differ(&state, &from, &to).await?;
    Ok(Json(diff::between(&from, &to, schema_changed)))
}

async fn schemas_differ(state: &ApiState, from: &Manifest, to: &Manifest) -> Result<bool, Problem> {
    let (before, after) = (schema(state, from).await?, schema(state, to).await?);
    let differ = diff::schemas_differ((&from.schema, &before), (&to.schema, &after));
    differ.map_err(|error| Problem::unavailable("a published object cannot be read", &error))
}

async fn schema(state: &ApiState, manifest: &Manifest) -> Result<Bytes, Problem> {
    let key = Key::Chunk(manifest.schema.sha256.clone());
    let gone =
        || Problem::not_found("NOT_FOUND", format!("{key}, the schema of {}, is gone from the bucket", manifest.snapshot_id));
    let (bytes, _) = state.services.store.get(&key).await?.ok_or_else(gone)?;
    Ok(bytes)
}

async fn manifest(state: &ApiState, id: &str, network: Option<&str>) -> Result<Manifest, Problem> {
    let row = published(state, id, network).await?;
    let bytes = stored_manifest(state, &row.path()).await?;
    Manifest::from_bytes(&bytes).map_err(|error| Problem::unavailable("a manifest cannot be read", &error))
}
