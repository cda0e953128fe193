//! A line between two programs that a test can cut.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a server, at most so many bytes of answer through each, and counts those.
pub(crate) struct Proxy {
    pub(crate) url: String,
    passed: Arc<AtomicU64>,
    limit: watch::Sender<u64>,
}

impl Proxy {
    /// In front of `http://host:port`.
    pub(crate) async fn start(server: &str, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (target, passed) = (server.strip_prefix("http://").unwrap().to_owned(), Arc::new(AtomicU64::new(0)));
        let (limit, limited) = watch::channel(limit);
        let counter = Arc::clone(&passed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut changed = limited.clone();
                let bytes = *changed.borrow_and_update();
                let passing = pass(client, target.clone(), bytes, Arc::clone(&counter));
                tokio::spawn(async move {
                    tokio::select! {
                        _ = passing => {}
                        _ = changed.changed() => {}
                    }
                });
            }
        });
        Self { url, passed, limit }
    }

    /// Bytes of answers since the last call.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.swap(0, Ordering::SeqCst)
    }

    /// Cuts all connections; new ones get `limit` bytes of answer each.
    pub(crate) fn cut(&self, limit: u64) {
        self.limit.send(limit).unwrap();
    }
}

async fn pass(client: TcpStream, target: String, limit: u64, passed: Arc<AtomicU64>) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = TcpStream::connect(target).await?.into_split();
    let asking = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let (mut answer, mut part) = (from_server.take(limit), vec![0; 64 * 1024]);
    loop {
        let read = answer.read(&mut part).await?;
        if read == 0 {
            break;
        }
        // Before the client has them: whoever saw it end finds them counted.
        passed.fetch_add(read as u64, Ordering::SeqCst);
        to_client.write_all(&part[..read]).await?;
    }
    asking.abort();
    to_client.shutdown().await
}
