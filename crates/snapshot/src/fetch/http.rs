//! Objects over HTTP: what a broken connection left is asked for as a range, until the object is whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, StatusCode, header};

use super::FetchError;

/// How often in a row a request may bring nothing.
const TRIES: u32 = 8;
/// Progress below this does not count: a server that gives a byte a time is as good as none.
const PROGRESS_BYTES: usize = 1 << 10;
/// How long a server may be silent, seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// Pause before try number `tries` + 1: 100 ms, doubled each time up to 5 s.
pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(50 * 2_u64.pow(tries.min(7))).min(Duration::from_secs(5))
}

#[derive(Debug, Clone)]
pub(super) struct HttpSource {
    client: Client,
    base: String,
}

/// What became of one request.
enum Outcome {
    Done,
    /// Worth another try, and why.
    Broken(String),
    Final(FetchError),
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

    /// The whole object, of at most `limit` bytes.
    pub(super) async fn get(&self, key: &str, limit: u64, retries: &AtomicU64) -> Result<Bytes, FetchError> {
        let url = format!("{}/{key}", self.base);
        let mut body = BytesMut::new();
        let mut idle = 0;
        loop {
            let before = body.len();
            let cause = match self.attempt(&url, key, limit, &mut body).await {
                Outcome::Done => return Ok(body.freeze()),
                Outcome::Final(error) => return Err(error),
                Outcome::Broken(cause) => cause,
            };
            idle = if body.len() >= before + PROGRESS_BYTES { 0 } else { idle + 1 };
            if idle >= TRIES {
                return Err(FetchError::Unreachable { url, tries: idle, cause });
            }
            tracing::debug!(url, cause, have = body.len(), "asking again");
            retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(idle)).await;
        }
    }

    /// Length of the object.
    pub(super) async fn size(&self, key: &str, retries: &AtomicU64) -> Result<Option<u64>, FetchError> {
        let url = format!("{}/{key}", self.base);
        let mut tries = 0;
        loop {
            tries += 1;
            let cause = match self.client.head(&url).send().await {
                Err(error) => chain(&error),
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(answer) if answer.status().is_success() => {
                    // `content_length()` speaks of the body, which an answer to HEAD has not.
                    let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                    return Ok(length.and_then(|text| text.parse().ok()));
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

    async fn attempt(&self, url: &str, key: &str, limit: u64, body: &mut BytesMut) -> Outcome {
        let mut request = self.client.get(url);
        if !body.is_empty() {
            request = request.header(header::RANGE, format!("bytes={}-", body.len()));
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Broken(chain(&error)),
        };
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&answer, body.len()) => {}
            // The server ignores ranges, or sends others than asked for: what is there is dropped.
            StatusCode::OK => body.clear(),
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                body.clear();
                return Outcome::Broken("the server answers ranges wrongly".into());
            }
            StatusCode::NOT_FOUND => return Outcome::Final(FetchError::Missing { key: key.to_owned() }),
            status if may_pass(status) => return Outcome::Broken(format!("HTTP status {status}")),
            status => return Outcome::Final(FetchError::Refused { url: url.to_owned(), status: status.as_u16() }),
        }
        receive(answer, limit, body).await
    }
}

async fn receive(mut answer: Response, limit: u64, body: &mut BytesMut) -> Outcome {
    if let Some(rest) = answer.content_length() {
        body.reserve(usize::try_from(rest.min(limit)).unwrap_or_default());
    }
    loop {
        match answer.chunk().await {
            Ok(None) => return Outcome::Done,
            Err(error) => return Outcome::Broken(chain(&error)),
            // One byte more than allowed is enough for the caller to see that it is too long.
            Ok(Some(part)) if (body.len() + part.len()) as u64 > limit => {
                let room = usize::try_from(limit + 1).unwrap_or(usize::MAX) - body.len();
                body.extend_from_slice(&part[..part.len().min(room)]);
                return Outcome::Done;
            }
            Ok(Some(part)) => body.extend_from_slice(&part),
        }
    }
}

fn starts_at(answer: &Response, from: usize) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(from)
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
    fn pauses_grow_and_end() {
        assert_eq!(pause(1), Duration::from_millis(100));
        assert!(pause(40) <= Duration::from_secs(5) + Duration::from_millis(1_400));
        assert!(HttpSource::new("ftp://x").is_err() && HttpSource::new("http://").is_err());
    }
}
