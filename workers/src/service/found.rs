//! `service.json`: how a command finds the service of a data directory.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

const FILE: &str = "service.json";

/// A service on this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// Address of its API.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

impl Found {
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        // Written beside and renamed: a reader sees all of it or none.
        let draft = dir.join(".service.json.new");
        std::fs::write(&draft, serde_json::to_vec(self)?)?;
        std::fs::rename(draft, dir.join(FILE))
    }

    pub(super) fn remove(dir: &Path) {
        // A file that stays behind only costs the next command a failed connection.
        let _ = std::fs::remove_file(dir.join(FILE));
    }

    /// The service of a data directory.
    ///
    /// # Errors
    /// None is running there.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        let none = || {
            let failure = Failure::new(Exit::Unreachable, format!("no service is running on {}", dir.display()));
            failure.hint("start one with `snapshots serve`, or name another with --data-dir or --url")
        };
        let bytes = std::fs::read(dir.join(FILE)).map_err(|_| none())?;
        serde_json::from_slice(&bytes).map_err(|_| none())
    }
}
