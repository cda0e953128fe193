//! Databases that are made to be thrown away: what a restore drill restores into.
//!
//! Where they come from (a private cluster, or a server that somebody lends) is the process's business: it implements
//! [`ScratchPlaces`]. Invariant: whatever becomes of a step or its process, what it made is gone at the latest when the next place
//! is opened.

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use url::Url;

/// Makes places to restore into.
pub trait ScratchPlaces: Send + Sync {
    /// Takes away what killed processes left, and opens a new place.
    fn open(&self) -> BoxFuture<'_, Result<Scratch, ScratchError>>;
}

/// Ends a place. Dropping it without [`ScratchGuard::close`] ends it too, but nobody waits for that.
pub trait ScratchGuard: Send + Sync {
    /// Takes everything away.
    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), ScratchError>>;
}

/// Why there is nothing to restore into.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A server, a directory or a file cannot be had.
    #[error("cannot {doing}")]
    Place {
        /// What was to be done.
        doing: String,
        /// Why it was not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A statement failed.
    #[error("cannot {doing} on the scratch server: its role needs CREATEDB, and a database `postgres` or its own to connect to")]
    Database {
        /// What was to be done.
        doing: String,
        /// Why it was not.
        #[source]
        source: sqlx::Error,
    },
    /// The URL of the server is none.
    #[error("the URL of the scratch server cannot be parsed")]
    Url(#[from] url::ParseError),
}

impl ScratchError {
    /// Names what was being done.
    pub fn place(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Place { doing: doing.into(), source: source.into() }
    }
}

/// A server on which databases may be made, and a directory for files. All of it goes with [`Scratch::close`].
pub struct Scratch {
    server: Url,
    prefix: String,
    dir: PathBuf,
    shares_disk: bool,
    free_at: fn(&Path) -> Option<u64>,
    guard: Box<dyn ScratchGuard>,
}

/// What a place consists of.
pub struct Parts {
    /// URL of a database from which others can be made. Holds a password: never log it.
    pub server: String,
    /// Names of databases begin so.
    pub prefix: String,
    /// A directory of its own, for files.
    pub dir: PathBuf,
    /// Whether the server's data lies on the disk of `dir`.
    pub shares_disk: bool,
    /// Bytes that are free where a path is.
    pub free_at: fn(&Path) -> Option<u64>,
    /// What ends it.
    pub guard: Box<dyn ScratchGuard>,
}

impl Scratch {
    /// A place.
    ///
    /// # Errors
    /// [`ScratchError::Url`].
    pub fn new(parts: Parts) -> Result<Self, ScratchError> {
        let Parts { server, prefix, dir, shares_disk, free_at, guard } = parts;
        Ok(Self { server: server.parse()?, prefix, dir, shares_disk, free_at, guard })
    }

    /// The directory for files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether databases and files share a disk.
    #[must_use]
    pub fn shares_disk(&self) -> bool {
        self.shares_disk
    }

    /// How to learn what is free on a disk of this machine.
    #[must_use]
    pub fn free_at(&self) -> fn(&Path) -> Option<u64> {
        self.free_at
    }

    /// Makes an empty database, in place of an older one of that name, and returns its URL.
    ///
    /// # Errors
    /// [`ScratchError::Database`].
    pub async fn database(&self, name: &str) -> Result<String, ScratchError> {
        self.drop_database(name).await?;
        let name = format!("{}{name}", self.prefix);
        self.execute(&format!("create database {name} template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'")).await?;
        let mut url = self.server.clone();
        url.set_path(&name);
        Ok(url.into())
    }

    /// Drops a database that [`Scratch::database`] made.
    ///
    /// # Errors
    /// [`ScratchError::Database`].
    pub async fn drop_database(&self, name: &str) -> Result<(), ScratchError> {
        self.execute(&format!("drop database if exists {}{name} with (force)", self.prefix)).await
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// [`ScratchError`]; what could not be taken away is when the next place is opened.
    pub async fn close(self) -> Result<(), ScratchError> {
        self.guard.close().await
    }

    /// Runs a statement that names nothing but what we named ourselves.
    async fn execute(&self, statement: &str) -> Result<(), ScratchError> {
        let doing = || statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let ran = async {
            let mut connection = PgConnection::connect(self.server.as_str()).await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
            connection.close().await
        };
        ran.await.map_err(|source| ScratchError::Database { doing: doing(), source })
    }
}
