//! Where signing keys are and what opens them, from the environment alone: a secret is never an argument.

use std::path::{Path, PathBuf};

use snapshot::sign::{Keyring, KeyringError, Password};

use crate::exit::{Exit, Failure};

/// Folder of the keys in a service's data directory.
const FOLDER: &str = "signing-keys";

/// `SNAPSHOTS_SIGNING_KEY_DIR`, `SNAPSHOTS_SIGNING_PASSWORD_FILE`, `SNAPSHOTS_SIGNING_PASSWORD`.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    dir: Option<PathBuf>,
    password: Password,
}

impl Signing {
    pub(crate) fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let password = match var("SNAPSHOTS_SIGNING_PASSWORD_FILE") {
            Some(file) => Some(first_line(Path::new(&file), "SNAPSHOTS_SIGNING_PASSWORD_FILE")?),
            None => var("SNAPSHOTS_SIGNING_PASSWORD"),
        };
        Ok(Self { dir: var("SNAPSHOTS_SIGNING_KEY_DIR").map(PathBuf::from), password: Password::new(password) })
    }

    /// Reads the environment.
    ///
    /// # Errors
    /// A password file that cannot be read.
    pub fn from_env() -> Result<Self, Failure> {
        Self::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The keyring that the environment names, or that of a data directory.
    pub fn keyring(&self, data_dir: &Path) -> Keyring {
        let dir = self.dir.clone().unwrap_or_else(|| data_dir.join(FOLDER));
        Keyring::new(dir, self.password.clone())
    }

    /// What a service signs with. One whose bucket is its own makes keys at its first start; with a bucket that several share the
    /// operator says which keys, because each process would else make its own.
    ///
    /// # Errors
    /// Keys that are named but not there, or cannot be made.
    pub fn for_service(&self, data_dir: &Path, own_bucket: bool) -> Result<Option<Keyring>, Failure> {
        let keyring = self.keyring(data_dir);
        if keyring.exists() {
            return Ok(Some(keyring));
        }
        if self.dir.is_some() {
            return Err(failure(KeyringError::None { dir: keyring.dir().to_owned() }));
        }
        if own_bucket {
            keyring.generate().map_err(failure)?;
            return Ok(Some(keyring));
        }
        tracing::warn!(
            "snapshots will not be signed, and `snapshots restore` refuses such: make keys with `snapshots signing-key generate`"
        );
        Ok(None)
    }
}

/// The secret in the file that a variable names.
pub(crate) fn first_line(path: &Path, variable: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let failure = Failure::caused(Exit::Auth, format!("cannot read {}", path.display()), error);
        failure.hint(format!("{variable} names a file whose first line is the secret"))
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A keyring's error with the exit code that fits.
pub(crate) fn failure(error: KeyringError) -> Failure {
    let (exit, hint) = match &error {
        KeyringError::None { .. } => (Exit::NotFound, "SNAPSHOTS_SIGNING_KEY_DIR or --data-dir names the directory of the keys"),
        KeyringError::Exists { .. } => (Exit::Refused, "`snapshots signing-key show` shows them"),
        KeyringError::Locked { .. } | KeyringError::Open { .. } => {
            (Exit::Auth, "the keys stay as they are until this is put right")
        }
        KeyringError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            (Exit::Auth, "run it as the user that the service runs as")
        }
        _ => (Exit::Failed, "see the cause above"),
    };
    Failure::caused(exit, "cannot use the signing keys", error).hint(hint)
}
