//! A bucket that fails on purpose: between a service and a real S3 server, request by request.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::RANGE;
use axum::http::request::Parts;
use axum::response::Response;
use futures::{StreamExt, stream};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered with this status and never reaches the server.
    Answer(u16),
    /// It is taken and never answered.
    Silence,
    /// Half of its body reaches the server; then both connections break.
    CutUpload,
    /// The server does what it is asked to; half of its answer arrives, then the connection breaks.
    CutAnswer,
    /// It waits until [`FaultProxy::release`], then goes its way.
    Hold,
}

/// A request, as far as a test may care.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Bucket and key.
    pub(crate) path: String,
    /// Which bytes, unless all.
    pub(crate) range: Option<String>,
    /// How often the same was asked before.
    pub(crate) before: u32,
}

type Decide = Arc<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// Passes requests on, but for those that the test wants to fail.
pub(crate) struct FaultProxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    http: reqwest::Client,
    decide: Mutex<Decide>,
    asked: Mutex<HashMap<String, u32>>,
    faults: watch::Sender<Vec<(Asked, Fault)>>,
    released: watch::Sender<bool>,
}

impl FaultProxy {
    /// In front of `http://host:port`. What `decide` says of a request happens to it.
    pub(crate) async fn start(server: &str, decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            decide: Mutex::new(Arc::new(decide)),
            asked: Mutex::default(),
            faults: watch::Sender::default(),
            released: watch::Sender::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| Arc::clone(&shared).handle(request.map(Body::new)));
                // An error here is a connection that broke, mostly on purpose.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
            }
        });
        Self { url, shared }
    }

    /// Decides about later requests; counting starts anew.
    pub(crate) fn decide(&self, decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.decide.lock().unwrap() = Arc::new(decide);
        self.shared.asked.lock().unwrap().clear();
    }

    /// Lets all requests go on that are held, and those that would be.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// What was done to requests so far.
    pub(crate) fn faults(&self) -> Vec<(Asked, Fault)> {
        self.shared.faults.borrow().clone()
    }
}

/// Breaks the connection: hyper answers nothing when a service fails.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

impl Shared {
    async fn handle(self: Arc<Self>, request: Request) -> Result<Response, Broken> {
        let asked = self.count(&request);
        let decide = Arc::clone(&self.decide.lock().unwrap());
        let fault = decide(&asked);
        if let Some(fault) = fault {
            self.faults.send_modify(|faults| faults.push((asked, fault)));
        }
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(|_| Broken)?;
        match fault {
            None | Some(Fault::CutAnswer) => {}
            Some(Fault::Answer(status)) => return Ok(Response::builder().status(status).body(Body::empty()).unwrap()),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::CutUpload) => {
                let half = body.slice(..body.len() / 2);
                let broken: [Result<Bytes, Broken>; 2] = [Ok(half), Err(Broken)];
                // Its failure is the point.
                let _ = self.forward(parts, reqwest::Body::wrap_stream(stream::iter(broken))).await;
                return Err(Broken);
            }
            Some(Fault::Hold) => drop(self.released.subscribe().wait_for(|released| *released).await),
        }
        let answer = self.forward(parts, body.into()).await.map_err(|_| Broken)?;
        let mut response = Response::builder().status(answer.status());
        *response.headers_mut().unwrap() = answer.headers().clone();
        if fault == Some(Fault::CutAnswer) {
            let whole = answer.bytes().await.map_err(|_| Broken)?;
            let half = stream::iter([Ok(whole.slice(..whole.len() / 2))]);
            // A body that is not ready makes hyper send what it has; else it would break before the headers are out.
            let broken = stream::once(async {
                tokio::task::yield_now().await;
                Err(Broken)
            });
            return Ok(response.body(Body::from_stream(half.chain(broken))).unwrap());
        }
        Ok(response.body(Body::from_stream(answer.bytes_stream())).unwrap())
    }

    fn count(&self, request: &Request) -> Asked {
        let (method, uri) = (request.method().clone(), request.uri());
        let mut asked = self.asked.lock().unwrap();
        let times = asked.entry(format!("{method} {uri}")).or_default();
        let before = *times;
        *times += 1;
        let range = request.headers().get(RANGE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Asked { method, path: uri.path().to_owned(), range, before }
    }

    /// The request as it was signed: every header, the host's too, stays.
    async fn forward(&self, parts: Parts, body: reqwest::Body) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}{}", self.server, parts.uri);
        self.http.request(parts.method, url).headers(parts.headers).body(body).send().await
    }
}
