//! The public keys that a reader believes, and the one check of a signature.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use minisign_verify::{Error, PublicKey, Signature};

use crate::key::Key;

/// Public keys that a reader believes. Two at least while keys are rotated: the active one and the next.
#[derive(Clone, Default)]
pub struct TrustedKeys {
    keys: Vec<Trusted>,
}

#[derive(Clone)]
struct Trusted {
    id: String,
    key: PublicKey,
}

/// Why a signature is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Neither a key in text form nor a file with one.
    #[error("`{given}` is neither a minisign public key (56 characters, beginning with RW) nor a file that holds one")]
    NotAKey {
        /// What was given, shortened.
        given: String,
    },
    /// No key was named.
    #[error("no public key is trusted, so nothing that is signed can be believed")]
    NoKeys,
    /// Not a signature file.
    #[error("the signature of {key} is not a minisign signature")]
    NotASignature {
        /// The object.
        key: String,
    },
    /// Signed by somebody else.
    #[error("{key} is signed with key {found}, which is not among the trusted keys ({trusted})")]
    UnknownKey {
        /// The object.
        key: String,
        /// Id of the key that signed.
        found: String,
        /// Ids of the trusted ones.
        trusted: String,
    },
    /// The bytes are not those that were signed.
    #[error("{key} is not what was signed: it was changed, or its signature was")]
    Bad {
        /// The object.
        key: String,
    },
    /// A good signature of another object.
    #[error("the signature beside {key} is that of `{other}`")]
    OtherObject {
        /// The object.
        key: String,
        /// What the signature says it is for.
        other: String,
    },
}

impl TrustedKeys {
    /// Adds a key given as its base64 line, as the text of a `.pub` file, or as the path of one.
    ///
    /// # Errors
    /// [`SignatureError::NotAKey`].
    pub fn add(&mut self, given: &str) -> Result<(), SignatureError> {
        let key = match std::fs::read_to_string(Path::new(given.trim())) {
            Ok(text) => parse(&text),
            Err(_) => parse(given),
        };
        let given = given.chars().take(80).collect();
        self.keys.push(key.ok_or(SignatureError::NotAKey { given })?);
        Ok(())
    }

    /// True where no key is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Makes sure that `bytes` are what one of the keys signed as the object `key`. Returns the id of that key.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, key: &Key, bytes: &[u8], signature: &[u8]) -> Result<String, SignatureError> {
        if self.keys.is_empty() {
            return Err(SignatureError::NoKeys);
        }
        let key = key.to_string();
        let text = std::str::from_utf8(signature).ok();
        let signer = |text: &str| text.lines().nth(1).and_then(id_in);
        let parsed = text.and_then(|text| Signature::decode(text).ok().zip(signer(text)));
        let Some((signature, found)) = parsed else { return Err(SignatureError::NotASignature { key }) };
        for trusted in &self.keys {
            match trusted.key.verify(bytes, &signature, false) {
                Ok(()) => {
                    let other = signature.trusted_comment().split(' ').next().unwrap_or_default().to_owned();
                    return if other == key { Ok(found) } else { Err(SignatureError::OtherObject { key, other }) };
                }
                Err(Error::UnexpectedKeyId) => {}
                Err(_) => return Err(SignatureError::Bad { key }),
            }
        }
        Err(SignatureError::UnknownKey { key, found, trusted: self.ids().join(", ") })
    }

    /// Ids of the keys.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|trusted| trusted.id.clone()).collect()
    }
}

impl std::fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TrustedKeys").field(&self.ids()).finish()
    }
}

/// The last line, which is the key itself.
fn parse(text: &str) -> Option<Trusted> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let key = PublicKey::from_base64(line).ok()?;
    Some(Trusted { id: id_in(line)?, key })
}

/// Id of the key in the base64 of a public key or signature (bytes 2 to 9, little endian), as `minisign` prints it.
pub(super) fn id_in(base64: &str) -> Option<String> {
    let bytes = BASE64.decode(base64).ok()?;
    Some(bytes.get(2..10)?.iter().rev().map(|byte| format!("{byte:02X}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SnapshotPath;

    fn signed(key: &Key, bytes: &[u8]) -> (TrustedKeys, Vec<u8>) {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let comment = super::super::comment_of(&key.to_string(), 3);
        let signature = minisign::sign(None, &pair.sk, bytes, Some(&comment), None).unwrap();
        let mut trusted = TrustedKeys::default();
        trusted.add(&pair.pk.to_box().unwrap().to_string()).unwrap();
        (trusted, signature.to_bytes())
    }

    fn manifest(id: &str) -> Key {
        Key::Manifest(SnapshotPath::new("mainnet", id))
    }

    #[test]
    fn a_good_signature_is_believed_and_names_its_key() {
        let (trusted, signature) = signed(&manifest("a"), b"text");
        assert_eq!(trusted.verify(&manifest("a"), b"text", &signature).unwrap(), trusted.ids()[0]);
    }

    #[test]
    fn other_bytes_another_object_another_key_and_garbage_are_told_apart() {
        let (trusted, signature) = signed(&manifest("a"), b"text");
        let (others, _) = signed(&manifest("a"), b"text");
        let verify = |keys: &TrustedKeys, id: &str, bytes: &[u8], signature: &[u8]| {
            keys.verify(&manifest(id), bytes, signature).expect_err("must not be believed")
        };
        assert!(matches!(verify(&trusted, "a", b"test", &signature), SignatureError::Bad { .. }));
        assert!(matches!(verify(&trusted, "b", b"text", &signature), SignatureError::OtherObject { .. }));
        assert!(matches!(verify(&others, "a", b"text", &signature), SignatureError::UnknownKey { .. }));
        assert!(matches!(verify(&TrustedKeys::default(), "a", b"text", &signature), SignatureError::NoKeys));
        for garbage in [&b""[..], b"untrusted comment: x\n", b"\xff\xfe", &signature[..signature.len() / 2]] {
            assert!(matches!(verify(&trusted, "a", b"text", garbage), SignatureError::NotASignature { .. }));
        }
        let comment = String::from_utf8(signature).unwrap().replace("sequence 3", "sequence 4");
        assert!(matches!(verify(&trusted, "a", b"text", comment.as_bytes()), SignatureError::Bad { .. }));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let mut trusted = TrustedKeys::default();
        for given in ["", "RWQ", "/nowhere/minisign.pub", "untrusted comment: x\nRWQ"] {
            assert!(trusted.add(given).is_err(), "{given:?}");
        }
        assert!(trusted.is_empty());
    }
}
