//! Where messages go, and how one is posted: signed as Standard Webhooks 1.0 says, where there is a secret.
//! Invariant: addresses and secrets are in no error and no debug output; an address is a secret, chats put their tokens into it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use sha2::Sha256;

use super::message::Message;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who is told.
#[derive(Clone, Default)]
pub struct Receivers {
    alarms: Option<Url>,
    key: Option<Vec<u8>>,
    heartbeat: Option<Url>,
}

impl std::fmt::Debug for Receivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receivers").finish_non_exhaustive()
    }
}

/// A setting that is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadReceiver {
    /// Not a URL of the web.
    #[error("it is not an http or https URL")]
    Url,
    /// Not a secret of Standard Webhooks.
    #[error("it is not whsec_ and the base64 of 24 to 64 bytes")]
    Secret,
}

/// Why nobody was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("{0} is not set in the process that was to tell it")]
    NotSet(&'static str),
    #[error("the receiver answered {0}")]
    Refused(StatusCode),
    #[error("the receiver does not answer")]
    Silent(#[source] reqwest::Error),
}

impl Receivers {
    /// Takes the addresses of alarms and heartbeats, and the secret that signs alarms.
    ///
    /// # Errors
    /// The first that is of no use, by its place.
    pub fn new(alarms: Option<&str>, secret: Option<&str>, heartbeat: Option<&str>) -> Result<Self, (usize, BadReceiver)> {
        Ok(Self {
            alarms: alarms.map(url).transpose().map_err(|bad| (0, bad))?,
            key: secret.map(key).transpose().map_err(|bad| (1, bad))?,
            heartbeat: heartbeat.map(url).transpose().map_err(|bad| (2, bad))?,
        })
    }

    /// Whether alarms go anywhere.
    pub(super) fn hears_alarms(&self) -> bool {
        self.alarms.is_some()
    }

    /// Whether heartbeats go anywhere.
    pub(super) fn hears_heartbeats(&self) -> bool {
        self.heartbeat.is_some()
    }

    /// Whether there is anybody to tell anything.
    #[must_use]
    pub fn hear(&self) -> bool {
        self.hears_alarms() || self.hears_heartbeats()
    }

    pub(super) async fn post(&self, id: &str, message: &Message) -> Result<u16, PostError> {
        let url = self.alarms.clone().ok_or(PostError::NotSet("SNAPSHOTS_ALARM_WEBHOOK"))?;
        let body = serde_json::to_vec(message).unwrap_or_default();
        let timestamp = Utc::now().timestamp();
        let mut request = client()?.post(url).header("content-type", "application/json");
        request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", signature(key, id, timestamp, &body));
        }
        send(request.body(body)).await
    }

    pub(super) async fn beat(&self) -> Result<u16, PostError> {
        let url = self.heartbeat.clone().ok_or(PostError::NotSet("SNAPSHOTS_HEARTBEAT_URL"))?;
        send(client()?.get(url)).await
    }
}

/// Messages are rare: a connection kept for the next one would be dead by then.
fn client() -> Result<Client, PostError> {
    let agent = concat!("secondlayer-snapshots/", env!("CARGO_PKG_VERSION"));
    let client = Client::builder().timeout(PATIENCE).redirect(Policy::none()).user_agent(agent);
    client.build().map_err(silent)
}

async fn send(request: RequestBuilder) -> Result<u16, PostError> {
    let status = request.send().await.map_err(silent)?.status();
    if status.is_success() { Ok(status.as_u16()) } else { Err(PostError::Refused(status)) }
}

fn silent(error: reqwest::Error) -> PostError {
    PostError::Silent(error.without_url())
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
fn signature(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // A key of any length will do for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn url(text: &str) -> Result<Url, BadReceiver> {
    let url = Url::parse(text).map_err(|_| BadReceiver::Url)?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(BadReceiver::Url) }
}

fn key(text: &str) -> Result<Vec<u8>, BadReceiver> {
    let key = text.strip_prefix("whsec_").and_then(|secret| STANDARD.decode(secret).ok());
    key.filter(|key| (24..=64).contains(&key.len())).ok_or(BadReceiver::Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_libraries_of_standard_webhooks_do() {
        // The example of the reference libraries' own tests.
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_of_no_use_is_refused_and_nothing_shows_what_is() {
        let bad = |alarms, secret, heartbeat| Receivers::new(alarms, secret, heartbeat).err().map(|(place, _)| place);
        for url in ["", "hooks.example/x", "ftp://hooks.example", "http://", "file:///etc/passwd"] {
            assert_eq!(bad(Some(url), None, None), Some(0), "{url}");
            assert_eq!(bad(None, None, Some(url)), Some(2), "{url}");
        }
        for secret in ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all, but long enough"] {
            assert_eq!(bad(None, Some(secret), None), Some(1), "{secret}");
        }
        let secret = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let receivers = Receivers::new(Some("https://hooks.example/T0KEN"), secret, None).unwrap();
        assert!(receivers.hears_alarms() && !receivers.hears_heartbeats());
        assert!(!format!("{receivers:?}").contains("T0KEN"));
    }
}
