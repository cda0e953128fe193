//! A public address of a bucket whose server fails in every way that a network does.
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::routing::get;
use futures::StreamExt;
use futures::stream;

/// Serves the files of a directory; while it is `flaky`, most answers are wrong in turn. It may hide what is not there, as a bucket does
/// that nobody may list.
pub(crate) struct FlakyServer {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    root: PathBuf,
    flaky: AtomicBool,
    hides: AtomicBool,
    lengths_hidden: AtomicBool,
    closed: Mutex<Option<String>>,
    requests: AtomicU64,
    sent: AtomicU64,
}

impl FlakyServer {
    /// Starts well behaved.
    pub(crate) async fn start(root: PathBuf) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { root, ..Shared::default() });
        let routes = Router::new().route("/{*key}", get(object)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, shared }
    }

    /// Begins or ends to fail.
    pub(crate) fn be_flaky(&self, flaky: bool) {
        self.shared.flaky.store(flaky, Ordering::SeqCst);
    }

    /// Answers 403 for what is not there.
    pub(crate) fn hide_missing(&self) {
        self.shared.hides.store(true, Ordering::SeqCst);
    }

    /// Says of no object how long it is.
    pub(crate) fn hide_lengths(&self) {
        self.shared.lengths_hidden.store(true, Ordering::SeqCst);
    }

    /// Answers 403 for whatever begins like this, or for nothing any more.
    pub(crate) fn close(&self, prefix: Option<&str>) {
        *self.shared.closed.lock().unwrap() = prefix.map(str::to_owned);
    }

    /// Bytes of bodies sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

async fn object(
    State(shared): State<Arc<Shared>>,
    Path(key): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let turn = shared.requests.fetch_add(1, Ordering::SeqCst) % 5;
    let flaky = shared.flaky.load(Ordering::SeqCst);
    let status = |status| Response::builder().status(status).body(Body::empty()).unwrap();
    if flaky && turn == 1 {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    if shared.closed.lock().unwrap().as_ref().is_some_and(|prefix| key.starts_with(prefix)) {
        return status(StatusCode::FORBIDDEN);
    }
    let Ok(all) = std::fs::read(shared.root.join(key)) else {
        let hides = shared.hides.load(Ordering::SeqCst);
        return status(if hides { StatusCode::FORBIDDEN } else { StatusCode::NOT_FOUND });
    };
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
    let from: usize = range.as_deref().map_or(0, |range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    let length = all.len();
    let body = Bytes::from(all).slice(from..);
    let hides_length = shared.lengths_hidden.load(Ordering::SeqCst);
    let mut answer = Response::builder();
    if !hides_length {
        answer = answer.header(header::CONTENT_LENGTH, body.len());
    }
    if range.is_some() {
        answer = answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{length}", length - 1));
    }
    if method == Method::HEAD {
        // A body whose length is known would bring a header with it.
        let empty = if hides_length { Body::from_stream(stream::empty::<std::io::Result<Bytes>>()) } else { Body::empty() };
        return answer.body(empty).unwrap();
    }
    // Every third answer breaks off after a third, every fourth drips.
    let kept = if flaky && turn == 2 { body.slice(..body.len() / 3) } else { body.clone() };
    let breaks = kept.len() < body.len();
    let pause = Duration::from_millis(if flaky && turn == 3 { 2 } else { 0 });
    let pieces: Vec<Bytes> = kept.chunks(16 << 10).map(Bytes::copy_from_slice).collect();
    let counter = Arc::clone(&shared);
    let dripping = stream::iter(pieces).then(move |piece| {
        let counter = Arc::clone(&counter);
        async move {
            tokio::time::sleep(pause).await;
            counter.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Ok::<_, std::io::Error>(piece)
        }
    });
    let end = stream::iter(breaks.then(|| Err(std::io::Error::other("cut"))));
    answer.body(Body::from_stream(dripping.chain(end))).unwrap()
}
