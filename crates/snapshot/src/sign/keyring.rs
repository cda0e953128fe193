//! The publisher's keys: one that signs, one that will, and the public halves of those that did.
//!
//! A directory with `<id>.key` (0600; stock `minisign -S -s` takes it), `<id>.pub`, and `keyring.json`, which says which is which and is
//! replaced by rename: a crash at any moment leaves either the old roles or the new ones, and whoever uses the keys next removes the
//! secret half that a killed rotation has left. Both live keys are published, so a reader
//! who pinned both goes on believing after a rotation and has until the one after it to learn the new one.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use minisign::{KeyPair, PError, SecretKey, SecretKeyBox};
use serde::{Deserialize, Serialize};

use super::trust::{TrustedKeys, id_in};
use super::{SignatureError, comment_of};
use crate::key::Key;

const ROLES: &str = "keyring.json";

/// What protects the secret keys at rest, if anything does. Not shown by `{:?}`.
#[derive(Clone, Default)]
pub struct Password(Option<String>);

impl Password {
    /// Keys are encrypted with this; `None`: only the file's mode protects them.
    pub fn new(password: Option<String>) -> Self {
        Self(password)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Password(set)" } else { "Password(none)" })
    }
}

/// A directory of signing keys. Cheap to clone; read anew at each use, so that a rotation needs no restart.
#[derive(Debug, Clone)]
pub struct Keyring {
    dir: PathBuf,
    password: Password,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It signs.
    Active,
    /// It will sign after the next rotation.
    Next,
    /// It signed once; its secret half is gone.
    Retired,
}

/// A public key and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedKey {
    /// 16 hex digits, as `minisign` prints it.
    pub id: String,
    /// What it is for.
    pub state: KeyState,
    /// The key's base64 line, for `minisign -P`.
    pub public_key: String,
}

impl PublishedKey {
    /// Text of a `.pub` file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("untrusted comment: minisign public key {}\n{}\n", self.id, self.public_key)
    }
}

/// A keyring that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// There are no keys in the directory.
    #[error("there is no signing key in {}: make one with `snapshots signing-key generate`", dir.display())]
    None {
        /// The directory.
        dir: PathBuf,
    },
    /// There are keys already.
    #[error("{} has signing keys already: replace them with `snapshots signing-key rotate`", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The keys are rotated, but the secret half of the old one is still there.
    #[error("the keys are rotated, but the old secret key {} could not be removed: remove it by hand, and do not rotate again", path.display())]
    NotDestroyed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read a secret key.
    #[error("{} can be read by others: run chmod 600 on it, and rotate the key if others may have it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{} is damaged: restore it from a copy, or take it away and generate new keys", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Wrong password, or none where one is needed.
    #[error("cannot open the secret key {id}: set SNAPSHOTS_SIGNING_PASSWORD_FILE to a file with its password")]
    Locked {
        /// Id of the key.
        id: String,
        /// The library's reason.
        #[source]
        source: PError,
    },
    /// Keys could not be made, or did not sign.
    #[error("cannot make a key or a signature")]
    Crypto(#[from] PError),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Roles {
    active: String,
    next: String,
    #[serde(default)]
    retired: Vec<String>,
}

impl Keyring {
    /// A keyring in a directory; nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>, password: Password) -> Self {
        Self { dir: dir.into(), password }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True once keys were generated.
    pub fn exists(&self) -> bool {
        self.dir.join(ROLES).exists()
    }

    /// Makes the first two keys.
    ///
    /// # Errors
    /// [`KeyringError::Exists`] where there are keys already; the file system's.
    pub fn generate(&self) -> Result<Vec<PublishedKey>, KeyringError> {
        if self.exists() {
            return Err(KeyringError::Exists { dir: self.dir.clone() });
        }
        std::fs::create_dir_all(&self.dir).map_err(|source| self.failed(&self.dir, source))?;
        std::fs::set_permissions(&self.dir, Permissions::from_mode(0o700)).map_err(|source| self.failed(&self.dir, source))?;
        let roles = Roles { active: self.make_key()?, next: self.make_key()?, retired: Vec::new() };
        self.write_roles(&roles)?;
        self.published()
    }

    /// The next key signs from now on, a new one is next, and the secret half of the old one is destroyed.
    ///
    /// # Errors
    /// [`KeyringError`]; after [`KeyringError::NotDestroyed`] the keys are rotated, after any other the roles are as they were.
    pub fn rotate(&self) -> Result<Vec<PublishedKey>, KeyringError> {
        let old = self.roles()?;
        self.destroy_retired(&old)?;
        // A key that cannot be opened must not begin to sign.
        self.open(&old.next)?;
        let mut retired = old.retired;
        retired.push(old.active.clone());
        let new = Roles { active: old.next, next: self.make_key()?, retired };
        self.write_roles(&new)?;
        self.destroy_retired(&new)?;
        self.published()
    }

    /// All public keys: active, next, then retired ones.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn published(&self) -> Result<Vec<PublishedKey>, KeyringError> {
        let roles = self.settled_roles()?;
        let live = [(roles.active, KeyState::Active), (roles.next, KeyState::Next)];
        let retired = roles.retired.into_iter().rev().map(|id| (id, KeyState::Retired));
        live.into_iter().chain(retired).map(|(id, state)| self.public(id, state)).collect()
    }

    /// Believes every key of this keyring.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn trusted(&self) -> Result<TrustedKeys, KeyringError> {
        let mut trusted = TrustedKeys::default();
        for key in self.published()? {
            let damaged = |_: SignatureError| KeyringError::Damaged { path: self.dir.join(format!("{}.pub", key.id)) };
            trusted.add(&key.public_key).map_err(damaged)?;
        }
        Ok(trusted)
    }

    /// Signs `bytes` as the object `key` of the snapshot with this sequence number: the content of `<key>.minisig`. With a
    /// password this takes a tenth of a second and 32 MiB, so keep it off the async threads.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn sign(&self, key: &Key, sequence: u64, bytes: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let active = self.settled_roles()?.active;
        let secret = self.open(&active)?;
        let comment = comment_of(&key.to_string(), sequence);
        let untrusted = format!("signature of {key} by key {active}");
        Ok(minisign::sign(None, &secret, bytes, Some(&comment), Some(&untrusted))?.to_bytes())
    }

    fn public(&self, id: String, state: KeyState) -> Result<PublishedKey, KeyringError> {
        let path = self.dir.join(format!("{id}.pub"));
        let text = std::fs::read_to_string(&path).map_err(|source| self.failed(&path, source))?;
        let line = text.lines().nth(1).map(str::trim).filter(|line| id_in(line).as_deref() == Some(&id));
        let public_key = line.ok_or(KeyringError::Damaged { path })?.to_owned();
        Ok(PublishedKey { id, state, public_key })
    }

    fn roles(&self) -> Result<Roles, KeyringError> {
        let path = self.dir.join(ROLES);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| KeyringError::Damaged { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(KeyringError::None { dir: self.dir.clone() }),
            Err(source) => Err(KeyringError::File { path, source }),
        }
    }

    /// The roles, once what a rotation that was killed has left is taken away. That it cannot be is no reason not to sign.
    fn settled_roles(&self) -> Result<Roles, KeyringError> {
        let roles = self.roles()?;
        if let Err(error) = self.destroy_retired(&roles) {
            tracing::warn!(%error, "a retired secret key is still there");
        }
        Ok(roles)
    }

    /// Removes the secret halves of retired keys. A rotation may have been killed before it came to that.
    fn destroy_retired(&self, roles: &Roles) -> Result<(), KeyringError> {
        for id in &roles.retired {
            let path = self.dir.join(format!("{id}.key"));
            match std::fs::remove_file(&path) {
                // Nearly always: it is gone, or its owner has moved it away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                destroyed => destroyed.map_err(|source| KeyringError::NotDestroyed { path, source })?,
            }
        }
        Ok(())
    }

    fn write_roles(&self, roles: &Roles) -> Result<(), KeyringError> {
        let (draft, path) = (self.dir.join(".keyring.json.new"), self.dir.join(ROLES));
        let text = serde_json::to_vec_pretty(roles).unwrap_or_default();
        let written = || {
            let mut file = std::fs::File::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            // Before the old secret goes, this must have come through a loss of power.
            std::fs::File::open(&self.dir)?.sync_all()
        };
        written().map_err(|source| self.failed(&path, source))
    }

    /// Makes a pair of files and returns the key's id.
    fn make_key(&self) -> Result<String, KeyringError> {
        let pair = match &self.password.0 {
            Some(password) => KeyPair::generate_encrypted_keypair(Some(password.clone()))?,
            None => KeyPair::generate_unencrypted_keypair()?,
        };
        let public_key = pair.pk.to_base64();
        let Some(id) = id_in(&public_key) else { return Err(KeyringError::Damaged { path: self.dir.clone() }) };
        let secret = pair.sk.to_box(Some(&format!("minisign secret key {id}")))?.into_string();
        self.write_new(&format!("{id}.key"), &secret, 0o600)?;
        let public = PublishedKey { id, state: KeyState::Next, public_key };
        self.write_new(&format!("{}.pub", public.id), &public.file(), 0o644)?;
        Ok(public.id)
    }

    fn write_new(&self, name: &str, text: &str, mode: u32) -> Result<(), KeyringError> {
        let path = self.dir.join(name);
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(mode).open(&path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|source| self.failed(&path, source))
    }

    fn open(&self, id: &str) -> Result<SecretKey, KeyringError> {
        let path = self.dir.join(format!("{id}.key"));
        let io = |source| self.failed(&path, source);
        if std::fs::metadata(&path).map_err(io)?.permissions().mode() & 0o077 != 0 {
            return Err(KeyringError::Open { path });
        }
        let text = std::fs::read_to_string(&path).map_err(io)?;
        let boxed = SecretKeyBox::from_string(&text)?;
        // A password that is not needed is no reason to refuse: keys may be older than it.
        if let Ok(plain) = boxed.clone().into_unencrypted_secret_key() {
            return Ok(plain);
        }
        // Without one the library would ask at the terminal.
        let password = self.password.0.clone().unwrap_or_default();
        boxed.into_secret_key(Some(password)).map_err(|source| KeyringError::Locked { id: id.to_owned(), source })
    }

    fn failed(&self, path: &Path, source: std::io::Error) -> KeyringError {
        KeyringError::File { path: path.to_owned(), source }
    }
}
