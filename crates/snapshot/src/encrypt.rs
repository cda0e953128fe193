//! Encryption of the `full` profile: age files for the operators' own X25519 keys.
//!
//! The service knows recipients, which encrypt; identities, which decrypt, are read where a restore runs and nowhere else.
//! Invariant: no error and no `{:?}` shows a line of an identity file.
//!
//! Format: <https://age-encryption.org/v1>; stock `age -d -i FILE` reads each object.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::secrecy::ExposeSecret;
use age::x25519;
use bytes::Bytes;

use crate::buffer::Buffer;

/// A key file that cannot be used, or an object that a key does not open.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The operating system refused.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is no key of the kind that is wanted.
    #[error("line {line} of {} is not {wanted}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What should be there.
        wanted: &'static str,
    },
    /// No key in it.
    #[error("{} names no key: it needs a line with {wanted}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
    },
    /// None of the identities opens it.
    #[error("none of the identities opens it: it was encrypted for other recipients")]
    NotForUs,
    /// It is no age file, or not the one that was written.
    #[error("it is not an age file, or a damaged one: {0}")]
    Damaged(String),
    /// Encrypting failed.
    #[error("cannot encrypt: {0}")]
    Failed(String),
}

const RECIPIENT: &str = "an X25519 recipient (age1…)";
const IDENTITY: &str = "an X25519 identity (AGE-SECRET-KEY-1…)";

/// Public keys: whoever holds the identity of one of them can read what is encrypted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recipients(Arc<[x25519::Recipient]>);

/// Secret keys. Cheap to clone; never shown.
#[derive(Clone)]
pub struct Identities(Arc<[x25519::Identity]>);

impl Recipients {
    /// Reads a recipients file, as `age -R` takes it: a key a line; empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`EncryptionError::File`], [`EncryptionError::NotAKey`], [`EncryptionError::Empty`].
    pub fn from_file(path: &Path) -> Result<Self, EncryptionError> {
        keys(path, RECIPIENT).map(|keys| Self(keys.into()))
    }

    /// The keys' text.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// One age file. Two calls give different bytes.
    ///
    /// # Errors
    /// [`EncryptionError::Failed`].
    pub fn encrypt(&self, plain: &[u8]) -> Result<Bytes, EncryptionError> {
        let failed = |error: &dyn std::fmt::Display| EncryptionError::Failed(error.to_string());
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| failed(&error))?;
        // 16 bytes a piece of 64 KiB, and a header of some 200 bytes a recipient.
        let room = plain.len() + plain.len() / 4096 + 1024 * (1 + self.0.len());
        let mut object = Buffer::of(room);
        let mut writer = encryptor.wrap_output(&mut *object).map_err(|error| failed(&error))?;
        writer.write_all(plain).map_err(|error| failed(&error))?;
        writer.finish().map_err(|error| failed(&error))?;
        Ok(object.freeze())
    }
}

impl Identities {
    /// Reads an identity file, as `age -i` takes it and `age-keygen` writes it.
    ///
    /// # Errors
    /// [`EncryptionError::File`], [`EncryptionError::NotAKey`], [`EncryptionError::Empty`].
    pub fn from_file(path: &Path) -> Result<Self, EncryptionError> {
        keys(path, IDENTITY).map(|keys| Self(keys.into()))
    }

    /// Makes a new identity, writes it into a new file of mode 0600, and returns its recipient.
    ///
    /// # Errors
    /// [`EncryptionError::File`]; a file that is there already is never replaced.
    pub fn generate(path: &Path) -> Result<String, EncryptionError> {
        let identity = x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let secret = identity.to_string();
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "# public key: {recipient}\n{}", secret.expose_secret())?;
            file.sync_all()
        };
        write().map_err(|source| EncryptionError::File { path: path.to_owned(), source })?;
        Ok(recipient)
    }

    /// What an age file holds.
    ///
    /// # Errors
    /// [`EncryptionError::NotForUs`], [`EncryptionError::Damaged`].
    pub fn decrypt(&self, object: &[u8]) -> Result<Bytes, EncryptionError> {
        let refused = |error: age::DecryptError| match error {
            age::DecryptError::NoMatchingKeys => EncryptionError::NotForUs,
            other => EncryptionError::Damaged(other.to_string()),
        };
        let decryptor = age::Decryptor::new_buffered(object).map_err(refused)?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = decryptor.decrypt(identities).map_err(refused)?;
        let mut plain = Buffer::of(object.len());
        reader.read_to_end(&mut plain).map_err(|error| EncryptionError::Damaged(error.to_string()))?;
        Ok(plain.freeze())
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// The keys of a file, one a line.
fn keys<K: std::str::FromStr>(path: &Path, wanted: &'static str) -> Result<Vec<K>, EncryptionError> {
    let text = std::fs::read_to_string(path).map_err(|source| EncryptionError::File { path: path.to_owned(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let not_a_key = |line| EncryptionError::NotAKey { path: path.to_owned(), line, wanted };
    let keys: Vec<K> = lines.map(|(at, line)| line.trim().parse().map_err(|_| not_a_key(at + 1))).collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(EncryptionError::Empty { path: path.to_owned(), wanted });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(dir: &Path, name: &str) -> (Identities, String) {
        let path = dir.join(name);
        let recipient = Identities::generate(&path).unwrap();
        (Identities::from_file(&path).unwrap(), recipient)
    }

    #[test]
    fn each_recipient_opens_what_was_encrypted_and_nobody_else_does() {
        let dir = std::env::temp_dir().join(format!("encrypt-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let ((first, a), (second, b), (other, _)) = (pair(&dir, "a"), pair(&dir, "b"), pair(&dir, "c"));
        let list = dir.join("recipients");
        std::fs::write(&list, format!("# ours\n{a}\n\n{b}\n")).unwrap();
        let recipients = Recipients::from_file(&list).unwrap();
        let plain = b"rows\n".repeat(50_000);
        let sealed = recipients.encrypt(&plain).unwrap();
        assert!(first.decrypt(&sealed).unwrap() == plain && second.decrypt(&sealed).unwrap() == plain);
        assert!(matches!(other.decrypt(&sealed), Err(EncryptionError::NotForUs)));
        let mut bad = sealed.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        assert!(matches!(first.decrypt(&bad), Err(EncryptionError::Damaged(_))));
        assert!(first.decrypt(&sealed[..sealed.len() - 1]).is_err());
        assert!(Identities::generate(&dir.join("a")).is_err(), "a key was replaced");
        let wrong = Recipients::from_file(&dir.join("a")).unwrap_err().to_string();
        assert!(wrong.contains("line 2") && !wrong.contains("SECRET"), "{wrong}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
