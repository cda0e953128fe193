//! Archives that are not stored: spliced from the snapshot's chunks as somebody reads them, in any range.
//!
//! Not the layout (that is the snapshot crate's). Invariant: the bytes are those whose digest `snapshot.sha256` says, since the
//! layout follows from the signed manifest alone and chunks are named by their content.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use snapshot::archive::{Layout, LayoutError};
use snapshot::assemble;
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::{Archive, Manifest};
use snapshot::store::ObjectMeta;

use super::objects::{Object, answer};
use crate::name::is_plain;
use crate::problem::Problem;
use crate::state::ApiState;

/// Layouts kept: whoever resumes a download, or reads it in pieces, asks again and again. Each is a few megabytes at most.
const KEPT: usize = 4;

/// An archive that can be spliced.
pub(crate) struct Splice {
    /// The manifest's own version: another one, another layout.
    etag: String,
    path: SnapshotPath,
    layout: Layout,
    meta: ObjectMeta,
}

/// The archives asked for last.
#[derive(Clone, Default)]
pub struct Splices(Arc<Mutex<VecDeque<Arc<Splice>>>>);

impl Splices {
    fn find(&self, path: &SnapshotPath, etag: &str) -> Option<Arc<Splice>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|one| one.path == *path && one.etag == etag).cloned()
    }

    fn keep(&self, splice: &Arc<Splice>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front(splice.clone());
        kept.truncate(KEPT);
    }
}

/// Where the bucket is somebody else's, this service answers for the archives that are not in it.
pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/{network}/{id}/{file}", get(archive))
}

async fn archive(
    State(state): State<ApiState>,
    Path((network, id, file)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("NOT_FOUND", format!("there is no object {network}/{id}/{file} here"));
    if !(is_plain(&network) && is_plain(&id)) {
        return Err(missing());
    }
    let path = SnapshotPath::new(&network, &id);
    let (archive, checksum) = (Key::Archive(path.clone()), Key::Checksum(path.clone()));
    // Whoever was sent to an archive here looks for its checksum beside it.
    let key =
        [archive, checksum.clone()].into_iter().find(|key| key.to_string() == format!("{path}/{file}")).ok_or_else(missing)?;
    if key == checksum {
        return elsewhere(&state, &key).await?.ok_or_else(missing);
    }
    if let Some(splice) = spliced(&state, &path).await? {
        return answer(&state, Object::Spliced(splice), &method, &headers).await;
    }
    elsewhere(&state, &key).await?.ok_or_else(missing)
}

/// Sends the reader to the bucket, if the object is there.
async fn elsewhere(state: &ApiState, key: &Key) -> Result<Option<Response>, Problem> {
    if state.services.store.head(key).await?.is_none() {
        return Ok(None);
    }
    let location = format!("{}/{key}", state.services.settings.public_base_url);
    Ok(Some((StatusCode::FOUND, [(header::LOCATION, location), (header::CACHE_CONTROL, "no-store".into())]).into_response()))
}

/// The archive of a snapshot that says that it is not stored. None where there is no such snapshot.
pub(crate) async fn spliced(state: &ApiState, path: &SnapshotPath) -> Result<Option<Arc<Splice>>, Problem> {
    let key = Key::Manifest(path.clone());
    let Some(there) = state.services.store.head(&key).await? else { return Ok(None) };
    if let Some(kept) = state.splices.find(path, &there.etag) {
        return Ok(Some(kept));
    }
    let Some((bytes, etag)) = state.services.store.get(&key).await? else { return Ok(None) };
    let unreadable = |error: &dyn std::error::Error| Problem::unavailable("the archive cannot be laid out", error);
    let manifest = Manifest::from_bytes(&bytes).map_err(|error| unreadable(&error))?;
    if manifest.archive == Archive::Stored {
        return Ok(None);
    }
    let schema = Key::Chunk(manifest.schema.sha256.clone());
    let gone = || Problem::not_found("NOT_FOUND", format!("{schema}, a part of the archive, is gone from the bucket"));
    let (schema, _) = state.services.store.get(&schema).await?.ok_or_else(gone)?;
    let path = path.clone();
    let laid = tokio::task::spawn_blocking(move || lay(&manifest, &schema, path, etag)).await;
    let splice = Arc::new(laid.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))?);
    state.splices.keep(&splice);
    Ok(Some(splice))
}

fn lay(manifest: &Manifest, schema: &[u8], path: SnapshotPath, etag: String) -> Result<Splice, LayoutError> {
    let layout = Layout::of_manifest(manifest, schema)?;
    let (content_type, cache_control) = Key::Archive(path.clone()).headers();
    let meta = ObjectMeta {
        bytes: layout.len(),
        etag: format!("\"{}\"", manifest.checksum.trim_start_matches("sha256:")),
        content_type: Some(content_type.to_owned()),
        cache_control: Some(cache_control.to_owned()),
    };
    Ok(Splice { etag, path, layout, meta })
}

impl Splice {
    pub(super) fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    /// The bytes `from..to`. A chunk that cannot be read breaks the connection, so that nobody takes a part for the whole.
    pub(super) fn body(&self, state: &ApiState, (from, to): (u64, u64)) -> Body {
        Body::from_stream(assemble::stream(&state.services.store, &self.layout, from..to))
    }
}
