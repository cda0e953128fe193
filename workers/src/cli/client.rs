//! Talks to a running service.

use std::time::Duration;

use clap::Args;
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

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

fn service_url(text: &str) -> Result<String, String> {
    let good = url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if good { Ok(text.to_owned()) } else { Err("an address looks like http://127.0.0.1:3900".into()) }
}

/// A service's API.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub(crate) fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let base = match &args.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => Found::read(&args.dir.path())?.url,
        };
        let http =
            reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).read_timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, base })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let url = self.url(path);
        let response = self.http.get(&url).send().await.map_err(|error| unreachable(&url, error))?;
        Ok(checked(response).await?.json().await?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let url = self.url(path);
        let response = self.http.post(&url).json(body).send().await.map_err(|error| unreachable(&url, error))?;
        Ok(checked(response).await?.json().await?)
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
        StatusCode::CONFLICT if problem["code"] == "NOTHING_TO_DO" => Exit::Refused,
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
    Err(match hint(exit) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

fn hint(exit: Exit) -> Option<&'static str> {
    match exit {
        Exit::NotFound => Some("`snapshots list` shows what is published"),
        Exit::Conflict => Some("wait for it to end; `snapshots list` shows the snapshot once it is published"),
        Exit::Refused => Some("start again once the database has blocks"),
        Exit::Unreachable => Some("try again shortly; the service's log says more"),
        _ => None,
    }
}
