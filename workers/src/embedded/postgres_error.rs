//! Why there is no private PostgreSQL, and what to do about it.
//!
//! It detects nothing itself. Invariant: each text names the directory or program and the remedy.
use std::path::{Path, PathBuf};

use super::account::AccountError;
use super::discover::DiscoverError;

/// Why the private server is not running.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No usable programs.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// No usable account or directory.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The cluster belongs to another user.
    #[error(
        "{} belongs to user id {found} but PostgreSQL would run as {wanted}: start the service as the user that made it, \
         `chown -R` the directory, or use another --data-dir",
        data.display()
    )]
    OtherOwner {
        /// The existing cluster.
        data: PathBuf,
        /// Owner of the cluster.
        found: u32,
        /// User id that the server would have.
        wanted: u32,
    },
    /// A program could not be run at all.
    #[error("cannot run {}: check the PostgreSQL installation", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the cluster cannot be read or written.
    #[error("cannot use {}: check its owner and rights, and that its disk is not full", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("PostgreSQL found no space left on the disk of {}: free some, or choose a --data-dir on a larger disk", dir.display())]
    DiskFull {
        /// Directory of the cluster.
        dir: PathBuf,
    },
    /// A program said no; its own words follow.
    #[error("{program} failed in {}: {said}", dir.display())]
    Failed {
        /// `initdb` or `pg_ctl …`.
        program: &'static str,
        /// Directory of the cluster; `postgres.log` in it says more.
        dir: PathBuf,
        /// The end of what the program or the server's log said.
        said: String,
    },
    /// The server runs but answers no connection.
    #[error("PostgreSQL in {} runs but does not answer: read postgres.log there", dir.display())]
    Unanswered {
        /// Directory of the cluster.
        dir: PathBuf,
        /// The last refusal.
        #[source]
        source: sqlx::Error,
    },
}

impl PostgresError {
    pub(super) fn failed(program: &'static str, dir: &Path, said: String) -> Self {
        let dir = dir.to_owned();
        if said.contains("No space left on device") {
            return Self::DiskFull { dir };
        }
        Self::Failed { program, dir, said }
    }
}
