//! Starts and stops the embedded S3 server.
//!
//! It knows HTTP and files, not what objects mean. Invariant: after [`EmbeddedS3::stop`] the port is free and no
//! request is in flight.
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::layout::Layout;
use super::objects::Objects;
use crate::embedded::postgres::Durability;

/// How long requests may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the embedded S3 server does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedS3Error {
    /// Its directory or files cannot be used.
    #[error("cannot use {}: check its owner and rights, and that its disk is not full", path.display())]
    File {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file store refused its directory.
    #[error("cannot open the object store in {}: {reason}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// No loopback port could be had.
    #[error("cannot listen on a loopback port")]
    Listen(#[source] std::io::Error),
}

/// A running server. Dropping it cuts its connections off; [`stop`](Self::stop) lets them finish.
pub struct EmbeddedS3 {
    identity: Identity,
    bucket: String,
    root: PathBuf,
    stopping: CancellationToken,
    serving: JoinHandle<()>,
}

impl std::fmt::Debug for EmbeddedS3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedS3").field("endpoint", &self.endpoint()).field("root", &self.root).finish_non_exhaustive()
    }
}

impl EmbeddedS3 {
    /// Serves the buckets in `dir`, and makes `bucket` if it is missing. Credentials are made once; the port of the
    /// last start is taken again unless somebody else has it by now.
    ///
    /// The caller holds the lock of the data directory: two servers on one directory would overwrite each other.
    pub async fn start(dir: &Path, bucket: &str, durability: Durability) -> Result<Self, EmbeddedS3Error> {
        let file = |source| EmbeddedS3Error::File { path: dir.to_owned(), source };
        let root = dir.join("objects");
        std::fs::create_dir_all(&root).map_err(file)?;
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(file)?;
        let root = root.canonicalize().map_err(file)?;
        let layout = Layout::new(&root);
        layout.sweep().map_err(file)?;
        let mut identity = Identity::load(dir).map_err(file)?;
        let listener = listen(identity.port).await.map_err(EmbeddedS3Error::Listen)?;
        identity.port = listener.local_addr().map_err(EmbeddedS3Error::Listen)?.port();
        identity.save(dir).map_err(file)?;
        let inner = FileSystem::new(&root)
            .map_err(|error| EmbeddedS3Error::Store { path: root.clone(), reason: format!("{error:?}") })?;
        let mut builder = S3ServiceBuilder::new(Objects::new(inner, layout, durability == Durability::Durable));
        builder.set_auth(SimpleAuth::from_single(identity.access_key.clone(), identity.secret_key.clone()));
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, builder.build(), stopping.clone()));
        let server = Self { identity, bucket: bucket.to_owned(), root, stopping, serving };
        server.create_bucket(bucket)?;
        Ok(server)
    }

    /// Makes another bucket unless it exists; `name` follows S3's rules for bucket names.
    pub fn create_bucket(&self, name: &str) -> Result<(), EmbeddedS3Error> {
        std::fs::create_dir_all(self.root.join(name)).map_err(|source| EmbeddedS3Error::File { path: self.root.clone(), source })
    }

    /// `http://127.0.0.1:<port>`; path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.identity.port)
    }

    /// Access key id, 20 characters.
    pub fn access_key(&self) -> &str {
        &self.identity.access_key
    }

    /// Secret key, 40 characters.
    pub fn secret_key(&self) -> &str {
        &self.identity.secret_key
    }

    /// Any region signs; this is the one to use.
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }

    /// The bucket that was asked for.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Directory of the buckets: an object is the plain file `<root>/<bucket>/<key>`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Stops listening, lets requests in flight finish for at most ten seconds, then cuts them off.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if tokio::time::timeout(DRAIN, &mut self.serving).await.is_err() {
            tracing::warn!("embedded object store: requests were cut off");
        }
    }
}

impl Drop for EmbeddedS3 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if port != 0 => {
            tracing::warn!(port, %error, "the port of the last start is taken, using another");
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        other => other,
    }
}

async fn serve(listener: TcpListener, service: S3Service, stopping: CancellationToken) {
    let http = Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let socket = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    // Out of descriptors: some will be closed.
                    tracing::warn!(%error, "embedded object store: accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = socket.set_nodelay(true);
        let connection = graceful.watch(http.serve_connection(TokioIo::new(socket), service.clone()).into_owned());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "embedded object store: connection");
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    graceful.shutdown().await;
}
