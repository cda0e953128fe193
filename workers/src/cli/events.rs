//! Reads the service's stream of events (server-sent events, WHATWG HTML §9.2), taken up again where it broke off.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use super::client::Client;
use crate::exit::{Exit, classify};

/// Time before a broken stream is taken up again.
const PAUSE: Duration = Duration::from_millis(500);

/// The events of one run, from its beginning.
pub(crate) struct Events<'a> {
    client: &'a Client,
    path: String,
    last: Option<String>,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    read: Vec<u8>,
}

impl<'a> Events<'a> {
    pub(crate) fn of_run(client: &'a Client, run: &str) -> Self {
        Self { client, path: format!("/runs/events?run={run}"), last: None, body: None, read: Vec::new() }
    }

    /// The next event; waits for it, through outages too. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(event) = self.take() {
                return Ok(event);
            }
            let Some(body) = &mut self.body else {
                self.open().await?;
                continue;
            };
            match body.next().await {
                Some(Ok(bytes)) => self.read.extend_from_slice(&bytes),
                Some(Err(_)) | None => {
                    self.body = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        match self.client.stream(&self.path, self.last.as_deref()).await {
            Ok(response) => {
                self.read.clear();
                self.body = Some(response.bytes_stream().boxed());
                Ok(())
            }
            // The first time it is the caller's to know; later the service may only be restarting.
            Err(error) if self.last.is_none() || classify(&error).0 != Exit::Unreachable => Err(error),
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
        }
    }

    /// An event that has been read whole; heartbeats are skipped.
    fn take(&mut self) -> Option<Value> {
        loop {
            let end = self.read.windows(2).position(|two| two == b"\n\n")?;
            let block: Vec<u8> = self.read.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
            if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                self.last = Some(id);
                if let Ok(event) = serde_json::from_str(&data) {
                    return Some(event);
                }
            }
        }
    }
}
