//! A data directory for embedded servers.
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A directory that PostgreSQL's own account can enter; a server that a failed test left in it ends with it.
pub(crate) struct Home {
    dir: TempDir,
}

/// Makes one, with a path short enough for sockets.
pub(crate) fn home() -> Home {
    let dir = tempfile::Builder::new().prefix("sn-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    Home { dir }
}

impl Home {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    /// The file that a PostgreSQL server has while it runs.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.path().join("postgres/data/postmaster.pid")
    }

    /// Names of what lies in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        names_in(self.path())
    }

    /// Names of what drills left in it.
    pub(crate) fn left_by_drills(&self) -> Vec<String> {
        let folder = self.path().join("snapshots-drill-scratch");
        if folder.exists() { names_in(&folder) } else { Vec::new() }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    std::fs::read_dir(dir).unwrap().map(name).collect()
}

impl Drop for Home {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(self.pid_file()).unwrap_or_default();
        if let Some(pid) = text.lines().next().and_then(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
    }
}
