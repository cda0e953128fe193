//! Talks to a running service.

use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use crate::config::DataDirArgs;
use crate::exit::{Exit, Failure};
use crate::service::Found;

/// Which service a command talks to.
#[derive(Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    dir: DataDirArgs,
    /// Address of the service; by default the one that runs on the data directory.
    #[arg(long, env = "SNAPSHOTS_URL", value_name = "URL", value_parser = service_url)]
    url: Option<String>,
}

impl ClientArgs {
    /// The data directory.
    pub(crate) fn dir(&self) -> DataDirArgs {
        self.dir.clone()
    }
}

fn service_url(text: &str) -> Result<String, String> {
    let good = url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if good { Ok(text.to_owned()) } else { Err("an address looks like http://127.0.0.1:3900".into()) }
}

/// How often something is asked for whose answer is lost.
const TRIES: u32 = 3;
/// The wait before the second time; it grows.
const PAUSE: Duration = Duration::from_millis(250);

/// Whether the service has done what it was asked to is not known.
struct Unanswered(anyhow::Error);

/// A service's API.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Client {
    pub(crate) fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let base = match &args.url {
            Some(url) => url.clone(),
            None => Found::read(&args.dir.path())?.url,
        };
        // Never on the command line, where everybody who lists processes can read it.
        let key = std::env::var("SNAPSHOTS_API_KEY").ok().filter(|key| !key.is_empty());
        Ok(Self { key, ..Self::of(&base)? })
    }

    /// A server that is not trusted with a key: whoever publishes at this address.
    pub(crate) fn of(base: &str) -> anyhow::Result<Self> {
        let http =
            reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).read_timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), key: None })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, None).await
    }

    /// Asks for a run. A request whose answer was lost on the way is sent again, under one key: it starts nothing twice.
    pub(crate) async fn start(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let key = uuid::Uuid::new_v4().to_string();
        let mut wait = PAUSE;
        for _ in 1..TRIES {
            match self.start_once(path, body, &key).await {
                Err(Unanswered(error)) => warn!(error = %error, "no answer was heard, asking again"),
                Ok(answer) => return answer,
            }
            tokio::time::sleep(wait).await;
            wait *= 4;
        }
        self.start_once(path, body, &key).await.unwrap_or_else(|Unanswered(error)| Err(error))
    }

    async fn start_once(&self, path: &str, body: &Value, key: &str) -> Result<anyhow::Result<Value>, Unanswered> {
        let request = self.request(Method::POST, path).header("idempotency-key", key).json(body);
        let lost = |error| Unanswered(unreachable(&self.url(path), error).into());
        let response = match request.send().await {
            // Nobody is there: trying again would only keep the caller waiting.
            Err(error) if error.is_connect() => return Ok(Err(unreachable(&self.url(path), error).into())),
            sent => sent.map_err(lost)?,
        };
        match checked(response).await {
            Ok(response) => response.json().await.map(Ok).map_err(lost),
            Err(refused) => Ok(Err(refused.into())),
        }
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::DELETE, path, None).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| unreachable(&self.url(path), error))?;
        Ok(checked(response).await?.json().await?)
    }

    /// Opens a stream of events, after the one of this id.
    pub(crate) async fn stream(&self, path: &str, last: Option<&str>) -> anyhow::Result<Response> {
        let mut request = self.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.map_err(|error| unreachable(&self.url(path), error))?;
        Ok(checked(response).await?)
    }

    /// A request to the service itself, the only one that is sent the key.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Opens a download from byte `from` on; `if_match` makes sure it is still the same object.
    pub(crate) async fn open(&self, url: &str, from: u64, if_match: Option<&str>) -> anyhow::Result<Response> {
        let mut request = self.http.get(url);
        if from > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={from}-"));
        }
        if let Some(etag) = if_match {
            request = request.header(reqwest::header::IF_MATCH, etag);
        }
        let response = request.send().await.map_err(|error| unreachable(url, error))?;
        Ok(checked(response).await?)
    }
}

/// A text as one segment of a path, or one value of a query.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn unreachable(url: &str, error: reqwest::Error) -> Failure {
    let failure = Failure::caused(Exit::Unreachable, format!("{url} does not answer"), error);
    failure.hint("is the service running? start it with `snapshots serve`, or name another with --url")
}

/// An error answer becomes an error with the exit code that fits.
async fn checked(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let path = response.url().path().to_owned();
    let problem: Value = response.json().await.unwrap_or_default();
    let exit = match status {
        StatusCode::CONFLICT if matches!(problem["code"].as_str(), Some("NOTHING_TO_DO" | "NOTHING_CHANGES")) => Exit::Refused,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT => Exit::Conflict,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Auth,
        StatusCode::PRECONDITION_FAILED => Exit::Diverged,
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => Exit::Usage,
        status if status.is_server_error() => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let detail = problem["detail"].as_str().map_or_else(|| format!("{path} answered {status}"), str::to_owned);
    let failure = Failure::new(exit, detail);
    let idle = (problem["code"] == "NOTHING_CHANGES")
        .then_some("`snapshots list` shows what is published; only `snapshots publish --back` moves `latest` backwards");
    Err(match idle.or_else(|| hint(exit)) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

fn hint(exit: Exit) -> Option<&'static str> {
    match exit {
        Exit::NotFound => Some("`snapshots list` shows what is published, `snapshots run list` what runs"),
        Exit::Conflict => Some("`snapshots run list` and `snapshots schedule list` show how things stand"),
        Exit::Usage => Some("the command's --help explains its arguments"),
        Exit::Auth => Some("set SNAPSHOTS_API_KEY to a key that `snapshots api-key create` made"),
        Exit::Refused => Some("start again once the database has blocks"),
        Exit::Unreachable => Some("try again shortly; the service's log says more"),
        _ => None,
    }
}
