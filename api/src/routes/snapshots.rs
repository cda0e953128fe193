//! `GET /snapshots`, `/snapshots/latest`, `/snapshots/{id}`.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use snapshot::drill::Record;
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::{Manifest, Pointer, Pointers};
use workflows::catalog::{self, SnapshotRow};

use crate::name::is_plain;
use crate::page::{self, Limit, Page};
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/snapshots", get(list)).route("/snapshots/latest", get(latest)).route("/snapshots/{id}", get(one))
}

#[derive(Deserialize)]
struct ListQuery {
    network: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Json<Page<SnapshotRow>>, Problem> {
    let limit = Limit::of(query.limit)?;
    if query.network.as_deref().is_some_and(|network| !is_plain(network)) {
        return Err(Problem::bad_request("VALIDATION_ERROR", "network is a name such as mainnet"));
    }
    let after = query.cursor.as_deref().map(page::place).transpose()?;
    let db = &state.services.control;
    let rows = catalog::published(db, query.network.as_deref(), after, limit.and_one_more()).await?;
    Ok(Json(Page::of(rows, limit, |row| format!("{}/{}", row.network, row.id))))
}

#[derive(Deserialize)]
struct NetworkQuery {
    network: Option<String>,
}

async fn latest(
    State(state): State<ApiState>,
    Query(query): Query<NetworkQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pointer = match query.network {
        Some(network) => pointer_of(&state, &network).await?,
        None => only_pointer(&state).await?,
    };
    manifest_of(&state, &pointer, &headers).await
}

/// The newest snapshot of a network.
pub(crate) async fn pointer_of(state: &ApiState, network: &str) -> Result<Pointer, Problem> {
    let none = || Problem::not_found("SNAPSHOT_NOT_FOUND", format!("no snapshot of network {network} has been published yet"));
    if !is_plain(network) {
        return Err(none());
    }
    let (bytes, _) = state.services.store.get(&Key::Latest(network.to_owned())).await?.ok_or_else(none)?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::unavailable("latest.json cannot be read", &error))
}

async fn only_pointer(state: &ApiState) -> Result<Pointer, Problem> {
    let none =
        || Problem::not_found("SNAPSHOT_NOT_FOUND", "no snapshot has been published yet; start one with `snapshots create`");
    let (bytes, _) = state.services.store.get(&Key::LatestOfAll).await?.ok_or_else(none)?;
    let all: Pointers =
        serde_json::from_slice(&bytes).map_err(|error| Problem::unavailable("latest.json cannot be read", &error))?;
    let networks = all.networks.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut pointers = all.networks.into_values();
    match (pointers.next(), pointers.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(none()),
        _ => Err(Problem::bad_request(
            "VALIDATION_ERROR",
            format!("several networks are published: add ?network= one of {networks}"),
        )),
    }
}

/// The manifest a pointer names, with the manifest's digest as strong validator.
pub(crate) async fn manifest_of(state: &ApiState, pointer: &Pointer, headers: &HeaderMap) -> Result<Response, Problem> {
    let path = SnapshotPath::new(&pointer.network, &pointer.snapshot_id);
    let cache = "public, max-age=60, stale-while-revalidate=300";
    answer_manifest(state, path, &pointer.manifest_sha256, cache, headers).await
}

async fn one(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<NetworkQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = published(&state, &id, query.network.as_deref()).await?;
    let sha256 = row.manifest_sha256.clone().unwrap_or_default();
    // Not for ever: the next drill of the snapshot changes the answer.
    let cache = "public, max-age=60";
    let Some((drill, etag)) = state.services.store.get(&Key::Drill(row.path())).await? else {
        return answer_manifest(&state, row.path(), &sha256, cache, &headers).await;
    };
    let etag = format!("\"{sha256}-{}\"", etag.trim_matches('"'));
    if is_known(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let unreadable = |error: serde_json::Error| Problem::unavailable("a published object cannot be read", &error);
    let manifest = stored_manifest(&state, &row.path()).await?;
    let joined = Joined {
        manifest: serde_json::from_slice(&manifest).map_err(unreadable)?,
        drill: serde_json::from_slice(&drill).map_err(unreadable)?,
    };
    Ok(([(header::ETAG, etag), (header::CACHE_CONTROL, cache.to_owned())], Json(joined)).into_response())
}

/// A manifest, and what the last restore drill found about it.
#[derive(Serialize)]
struct Joined {
    #[serde(flatten)]
    manifest: Manifest,
    drill: Record,
}

/// The published snapshot of an id.
pub(crate) async fn published(state: &ApiState, id: &str, network: Option<&str>) -> Result<SnapshotRow, Problem> {
    if !is_plain(id) || !network.is_none_or(is_plain) {
        return Err(never_was(id));
    }
    let mut rows = catalog::with_id(&state.services.control, network, id).await?;
    match (rows.pop(), rows.is_empty()) {
        (None, _) => Err(absent(state, id, network).await?),
        (Some(row), true) => Ok(row),
        _ => Err(Problem::bad_request("VALIDATION_ERROR", "several networks have a snapshot of this id: add ?network=")),
    }
}

/// Why there is no published snapshot of an id: it was taken back, or there never was one.
async fn absent(state: &ApiState, id: &str, network: Option<&str>) -> Result<Problem, Problem> {
    Ok(match catalog::retraction(&state.services.control, network, id).await? {
        Some(reason) => {
            let detail = format!("snapshot {id} was taken back: {reason}");
            Problem::new(StatusCode::GONE, "SNAPSHOT_RETRACTED", detail)
        }
        None => never_was(id),
    })
}

fn never_was(id: &str) -> Problem {
    Problem::not_found("SNAPSHOT_NOT_FOUND", format!("there is no published snapshot {id}"))
}

/// The bytes of a snapshot's manifest.
pub(crate) async fn stored_manifest(state: &ApiState, path: &SnapshotPath) -> Result<Bytes, Problem> {
    let gone = || Problem::not_found("SNAPSHOT_NOT_FOUND", format!("the manifest of {path} is not in the bucket"));
    let (bytes, _) = state.services.store.get(&Key::Manifest(path.clone())).await?.ok_or_else(gone)?;
    Ok(bytes)
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag || one.trim() == "*"))
}

async fn answer_manifest(
    state: &ApiState,
    path: SnapshotPath,
    sha256: &str,
    cache: &'static str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let etag = format!("\"{sha256}\"");
    let fixed = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, cache.to_owned())];
    if is_known(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let bytes = stored_manifest(state, &path).await?;
    Ok((fixed, [(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}
