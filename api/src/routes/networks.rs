//! `/{network}/latest` and the two names that `curl -LO` users type.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::Archive;

use super::snapshots::{manifest_of, pointer_of};
use crate::problem::Problem;
use crate::state::{ApiState, Delivery};

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/{network}/latest", get(latest))
        .route("/{network}/latest.tar.zst", get(archive))
        .route("/{network}/latest.tar.zst.sha256", get(checksum))
}

async fn latest(State(state): State<ApiState>, Path(network): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let pointer = pointer_of(&state, &network).await?;
    manifest_of(&state, &pointer, &headers).await
}

/// Sends the reader to the dated, immutable object: a download never changes under their hands.
async fn archive(State(state): State<ApiState>, Path(network): Path<String>) -> Result<Response, Problem> {
    let pointer = pointer_of(&state, &network).await?;
    let key = Key::Archive(SnapshotPath::new(&pointer.network, &pointer.snapshot_id));
    let location = match (state.delivery, pointer.archive) {
        // Made here, of chunks.
        (_, Archive::OnRequest) | (Delivery::Service, _) => format!("/{key}"),
        (Delivery::Bucket, Archive::Stored) => format!("{}/{key}", state.services.settings.public_base_url),
    };
    Ok((StatusCode::FOUND, [(header::LOCATION, location), (header::CACHE_CONTROL, "no-store".into())]).into_response())
}

/// `sha256sum -c` looks for the local file name, which is `latest.tar.zst` after `curl -LO`. `latest` may have moved since
/// that request: whoever wants both to be of one snapshot asks [`archive`] for the address once, as the README does.
async fn checksum(State(state): State<ApiState>, Path(network): Path<String>) -> Result<Response, Problem> {
    let pointer = pointer_of(&state, &network).await?;
    let digest = pointer.checksum.strip_prefix("sha256:").unwrap_or(&pointer.checksum);
    let line = format!("{digest}  latest.tar.zst\n");
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], line).into_response())
}
