//! The directory in which a service keeps its embedded servers.
//!
//! It knows the layout, not what is in the parts: `lock`, `postgres/`, `objects/`, `s3.json`. Invariant: whoever
//! holds a [`DataDir`] is the only one on this machine that does, and an ephemeral one is gone after its holder.
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cluster;
use super::lock::{DataDirLock, LockError};
use super::watchdog::Watchdog;

/// How the names of ephemeral directories begin.
const EPHEMERAL: &str = "snapshots-";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made, or is not a directory we may write.
    #[error("cannot use data directory {}: check its owner and rights, or choose another --data-dir", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Another service has it.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// A data directory, held by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: DataDirLock,
    watchdog: Option<Watchdog>,
}

impl DataDir {
    /// Opens or makes a lasting data directory and locks it.
    ///
    /// A new one can be entered but not listed by others (0711): under root the database runs as another account,
    /// in a part of its own. Every part and secret in it has narrower rights.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        if !path.exists() {
            std::fs::create_dir_all(path).map_err(unusable)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(unusable)?;
        }
        let path = path.canonicalize().map_err(unusable)?;
        let lock = DataDirLock::acquire(&path)?;
        Ok(Self { path, _lock: lock, watchdog: None })
    }

    /// Makes a data directory that a watchdog process deletes when this process ends, even by SIGKILL; a database
    /// server in it is stopped first.
    pub fn ephemeral() -> Result<Self, DataDirError> {
        let temp = std::env::temp_dir();
        let parent = if cluster::fits_socket(&temp.join("snapshots-XXXXXX/postgres/run")) { temp } else { "/tmp".into() };
        Self::ephemeral_in(&parent)
    }

    /// As [`DataDir::ephemeral`], in a directory that is there.
    pub fn ephemeral_in(parent: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: parent.to_owned(), source };
        let path = tempfile::Builder::new().prefix(EPHEMERAL).tempdir_in(parent).map_err(unusable)?.keep();
        let watchdog = Watchdog::start(&path).map_err(unusable)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o711)).map_err(unusable)?;
        let mut dir = Self::open(&path)?;
        dir.watchdog = Some(watchdog);
        Ok(dir)
    }

    /// Whether a path looks like one that [`DataDir::ephemeral_in`] made.
    #[must_use]
    pub fn is_ephemeral_name(path: &Path) -> bool {
        path.is_dir() && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(EPHEMERAL))
    }

    /// Does what the watchdog of an ephemeral directory could not, since the machine itself went down: stops a database server in
    /// it and deletes it. The caller holds its lock.
    ///
    /// # Errors
    /// The operating system's.
    pub fn take_away(path: &Path) -> std::io::Result<()> {
        Watchdog::start(path)?.finish()
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is deleted at the end.
    pub fn is_ephemeral(&self) -> bool {
        self.watchdog.is_some()
    }

    /// Where the private database lives.
    pub fn postgres_dir(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// Where the embedded S3 server keeps its objects.
    pub fn s3_dir(&self) -> PathBuf {
        self.path.join("s3")
    }

    /// Lets go of the directory. An ephemeral one is deleted before this returns; stop its servers first.
    pub fn close(self) -> Result<(), DataDirError> {
        match self.watchdog {
            Some(watchdog) => watchdog.finish().map_err(|source| DataDirError::Unusable { path: self.path.clone(), source }),
            None => Ok(()),
        }
    }
}
