//! Signatures of manifests, checksums and pointers, in the form that stock `minisign` makes and checks.
//!
//! Not a trust decision: which public keys are believed is the reader's to say ([`TrustedKeys`]); which secret key signs is the
//! publisher's ([`Keyring`]). Invariant: a secret key is in a file of mode 0600 and in memory, and nowhere else.
//!
//! Format: <https://jedisct1.github.io/minisign/>, prehashed mode only. The trusted comment, which the signature covers, begins
//! with the key of the object in the bucket, so that a signature of one object cannot stand beside another.

mod keyring;
mod trust;

pub use keyring::{KeyState, Keyring, KeyringError, Password, PublishedKey};
pub use trust::{SignatureError, TrustedKeys};

/// What the trusted comment of an object's signature says: where the object lies, then anything else.
fn comment_of(key: &str, sequence: u64) -> String {
    format!("{key} sequence {sequence}")
}
