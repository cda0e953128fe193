//! Objects over HTTP, from a bucket's public address or a service.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use reqwest::{Client, Response, StatusCode, header};

use super::ranges::{Answer, Failed, Patience, Ranged, pause};
use super::{FetchError, SILENCE, Size};

/// How often in a row a request may bring nothing.
const TRIES: u32 = 8;
/// For whole objects.
pub(super) const PATIENCE: Patience = Patience { tries: TRIES, silence: SILENCE, pause };

#[derive(Debug, Clone)]
pub(super) struct HttpSource {
    client: Client,
    base: String,
}

/// One object there.
pub(super) struct HttpObject<'a> {
    source: &'a HttpSource,
    key: &'a str,
}

impl HttpSource {
    pub(super) fn new(base: &str) -> Result<Self, FetchError> {
        let bad = || FetchError::Address { given: base.to_owned() };
        let url = url::Url::parse(base).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(bad());
        }
        let client = Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(SILENCE).build();
        Ok(Self { client: client.map_err(|_| bad())?, base: base.trim_end_matches('/').to_owned() })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn object<'a>(&'a self, key: &'a str) -> HttpObject<'a> {
        HttpObject { source: self, key }
    }

    /// Length of the object.
    pub(super) async fn size(&self, key: &str, retries: &AtomicU64) -> Result<Size, FetchError> {
        let url = format!("{}/{key}", self.base);
        let mut tries = 0;
        loop {
            tries += 1;
            let cause = match self.client.head(&url).send().await {
                Err(error) => chain(&error),
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => return Ok(Size::Missing),
                Ok(answer) if answer.status().is_success() => {
                    // `content_length()` speaks of the body, which an answer to HEAD has not.
                    let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                    return Ok(length.and_then(|text| text.parse().ok()).map_or(Size::Unknown, Size::Bytes));
                }
                Ok(answer) if !may_pass(answer.status()) => {
                    return Err(FetchError::Refused { url, status: answer.status().as_u16() });
                }
                Ok(answer) => format!("HTTP status {}", answer.status()),
            };
            if tries >= TRIES {
                return Err(FetchError::Unreachable { url, tries, cause });
            }
            retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(tries)).await;
        }
    }
}

impl Ranged for HttpObject<'_> {
    fn address(&self) -> String {
        format!("{}/{}", self.source.base, self.key)
    }

    async fn open(&self, from: u64) -> Result<Answer, Failed> {
        let url = self.address();
        let mut request = self.source.client.get(&url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let answer = request.send().await.map_err(|error| Failed::Broken(chain(&error)))?;
        let from = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => start(&answer).ok_or(Failed::NoSuchRange)?,
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failed::NoSuchRange),
            StatusCode::NOT_FOUND => return Err(Failed::Final(FetchError::Missing { key: self.key.to_owned() })),
            status if may_pass(status) => return Err(Failed::Broken(format!("HTTP status {status}"))),
            status => return Err(Failed::Final(FetchError::Refused { url, status: status.as_u16() })),
        };
        let length = answer.content_length();
        let body = stream::try_unfold(answer, async |mut answer| {
            let part = answer.chunk().await.map_err(|error| chain(&error))?;
            Ok(part.map(|part| (part, answer)))
        });
        Ok(Answer { from, length, body: body.boxed() })
    }
}

/// Where a partial answer begins.
fn start(answer: &Response) -> Option<u64> {
    super::start(answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?)
}

/// Statuses that another try may change.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// The whole chain of an error, in one line; reqwest's own text leaves its cause out.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_is_one() {
        assert!(HttpSource::new("ftp://x").is_err() && HttpSource::new("http://").is_err());
        assert_eq!(HttpSource::new("https://x/y/").unwrap().base(), "https://x/y");
    }
}
