//! Public objects of an embedded bucket: GET, HEAD and Range, without a key, for snapshots and chunks and nothing else.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use snapshot::key::{Key, SnapshotPath};
use snapshot::store::ObjectMeta;
use tokio_util::io::ReaderStream;

use super::archives::{Splice, spliced};
use crate::name::is_plain;
use crate::problem::Problem;
use crate::range::{Wanted, wanted};
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/chunks/{prefix}/{name}", get(chunk))
        .route("/{network}/{id}/{file}", get(file))
        .route("/signing-keys/{name}", get(public_key))
        .route("/latest.json", get(latest_of_all))
        .route("/{network}/latest.json", get(latest))
        .route("/{network}/status.json", get(status))
}

async fn chunk(
    state: State<ApiState>,
    Path((prefix, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let digest = name.strip_suffix(".zst").unwrap_or_default();
    let is_digest =
        digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) && digest.starts_with(&prefix);
    let asked = format!("chunks/{prefix}/{name}");
    serve(state, asked, is_digest.then(|| Key::Chunk(digest.to_owned())), method, headers).await
}

async fn file(
    state: State<ApiState>,
    Path((network, id, file)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = format!("{network}/{id}/{file}");
    let path = (is_plain(&network) && is_plain(&id)).then(|| SnapshotPath::new(network, id));
    let key = path.and_then(|path| public_keys(path).into_iter().find(|key| key.to_string() == asked));
    serve(state, asked, key, method, headers).await
}

/// Everything of one snapshot that anybody may read.
fn public_keys(path: SnapshotPath) -> Vec<Key> {
    let [checksum, manifest] = [Key::Checksum(path.clone()), Key::Manifest(path.clone())];
    let plain = [Key::Archive(path.clone()), checksum, manifest, Key::Pointer(path.clone()), Key::Drill(path.clone())];
    let signatures = plain[1..].iter().map(Key::signature).collect::<Vec<_>>();
    // Not signed: whoever could forge it could keep readers away anyhow.
    plain.into_iter().chain(signatures).chain([Key::Retracted(path)]).collect()
}

async fn public_key(
    state: State<ApiState>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = name.strip_suffix(".pub").filter(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    serve(state, format!("signing-keys/{name}"), id.map(|id| Key::PublicKey(id.to_owned())), method, headers).await
}

async fn latest_of_all(state: State<ApiState>, method: Method, headers: HeaderMap) -> Result<Response, Problem> {
    serve(state, "latest.json".into(), Some(Key::LatestOfAll), method, headers).await
}

async fn latest(
    state: State<ApiState>,
    Path(network): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = is_plain(&network).then(|| Key::Latest(network.clone()));
    serve(state, format!("{network}/latest.json"), key, method, headers).await
}

async fn status(
    state: State<ApiState>,
    Path(network): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = is_plain(&network).then(|| Key::Status(network.clone()));
    serve(state, format!("{network}/status.json"), key, method, headers).await
}

/// What is answered with.
pub(super) enum Object {
    /// It lies in the bucket under this key.
    Stored(String, ObjectMeta),
    /// It is made of chunks.
    Spliced(Arc<Splice>),
}

impl Object {
    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Stored(_, meta) => meta,
            Self::Spliced(splice) => splice.meta(),
        }
    }

    /// The bytes of a range, first and last, or all.
    async fn body(&self, state: &ApiState, range: Option<(u64, u64)>) -> Result<Body, Problem> {
        match self {
            Self::Spliced(splice) => {
                let (from, to) = range.map_or((0, splice.meta().bytes), |(from, to)| (from, to + 1));
                Ok(splice.body(state, (from, to)))
            }
            Self::Stored(key, _) => {
                let range = range.map(|(from, to)| format!("bytes={from}-{to}"));
                let object = state.services.store.open(key, range.as_deref()).await?;
                Ok(Body::from_stream(ReaderStream::with_capacity(object.body.into_async_read(), 256 << 10)))
            }
        }
    }
}

/// Answers with the object `key`; `None` where what was `asked` for is no name of a public object.
async fn serve(
    State(state): State<ApiState>,
    asked: String,
    key: Option<Key>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("NOT_FOUND", format!("there is no object {asked}"));
    let key = key.ok_or_else(missing)?;
    let object = match (state.services.store.head(&key).await?, key) {
        (Some(meta), key) => Object::Stored(key.to_string(), meta),
        (None, Key::Archive(path)) => Object::Spliced(spliced(&state, &path).await?.ok_or_else(missing)?),
        (None, _) => return Err(missing()),
    };
    answer(&state, object, &method, &headers).await
}

/// Answers with an object or a range of it, as RFC 9110 says.
pub(super) async fn answer(state: &ApiState, object: Object, method: &Method, headers: &HeaderMap) -> Result<Response, Problem> {
    let meta = object.meta();
    let range = match wanted(headers, meta) {
        Wanted::NotModified => return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, meta.etag.clone())]).into_response()),
        Wanted::Changed => {
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "CHANGED", "the object has another ETag"));
        }
        Wanted::Nothing => {
            let all = format!("bytes */{}", meta.bytes);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, all)]).into_response());
        }
        Wanted::All => None,
        Wanted::Part(range) => Some(range),
    };
    let fixed = fixed_headers(meta);
    if *method == Method::HEAD {
        // A range has no meaning for HEAD (RFC 9110, 14.2).
        return Ok((StatusCode::OK, fixed, [(header::CONTENT_LENGTH, meta.bytes.to_string())]).into_response());
    }
    let body = object.body(state, range).await?;
    let Some((from, to)) = range else {
        return Ok((StatusCode::OK, fixed, [(header::CONTENT_LENGTH, meta.bytes.to_string())], body).into_response());
    };
    let length = [(header::CONTENT_LENGTH, (to - from + 1).to_string())];
    let part = [(header::CONTENT_RANGE, format!("bytes {from}-{to}/{}", meta.bytes))];
    Ok((StatusCode::PARTIAL_CONTENT, fixed, length, part, body).into_response())
}

fn fixed_headers(meta: &ObjectMeta) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name, value: Option<&str>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, Some(&meta.etag));
    set(header::ACCEPT_RANGES, Some("bytes"));
    set(header::CONTENT_TYPE, meta.content_type.as_deref().or(Some("application/octet-stream")));
    set(header::CACHE_CONTROL, meta.cache_control.as_deref());
    headers
}
