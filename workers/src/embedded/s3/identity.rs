//! Credentials and port of the embedded S3 server, kept so that URLs and keys survive a restart.
//!
//! Invariant: the file is readable by its owner only, and replaced whole.
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rand::RngExt;
use rand::distr::{Alphanumeric, SampleString};
use serde::{Deserialize, Serialize};

/// Name of the file in the server's directory.
const FILE: &str = "identity.json";

/// What the server was last known by.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    /// 20 upper-case letters and digits, as AWS makes them.
    pub(super) access_key: String,
    /// 40 letters and digits.
    pub(super) secret_key: String,
    /// Port of the last start; 0 before the first.
    pub(super) port: u16,
}

impl Identity {
    /// Reads the file of an earlier start, or makes new random credentials.
    pub(super) fn load(dir: &Path) -> std::io::Result<Self> {
        match std::fs::read(dir.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text).map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::random()),
            Err(error) => Err(error),
        }
    }

    fn random() -> Self {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut rng = rand::rng();
        let access_key = (0..20).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect();
        Self { access_key, secret_key: Alphanumeric.sample_string(&mut rng, 40), port: 0 }
    }

    /// Writes the file.
    pub(super) fn save(&self, dir: &Path) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.as_file().set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(dir.join(FILE)).map_err(|error| error.error)?;
        Ok(())
    }
}
