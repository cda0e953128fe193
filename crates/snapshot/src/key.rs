//! Every path in the bucket is spelled here and nowhere else.
//!
//! Layout: `chunks/<aa>/<sha256>.zst` is content-addressed and shared by all snapshots; what belongs to one
//! snapshot lies under `<network>/<id>/`, and of the `full` profile, which has a bucket of its own, everything; the two `latest.json`,
//! `status.json`, and `drill.json` with its signature are the only objects that are ever replaced.

use std::fmt;

/// A key in the snapshot bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A chunk by the sha256 (64 hex digits) of its compressed bytes.
    Chunk(String),
    /// The archive of one snapshot.
    Archive(SnapshotPath),
    /// `sha256sum -c` input for the archive under its dated name.
    Checksum(SnapshotPath),
    /// The manifest: once it exists, the snapshot exists.
    Manifest(SnapshotPath),
    /// What `<network>/latest.json` says while it points at this snapshot: signed, and kept under the snapshot's own name.
    Pointer(SnapshotPath),
    /// The minisign signature of an object, under its name with `.minisig`.
    Signature(Box<Key>),
    /// What the last restore drill of a snapshot found.
    Drill(SnapshotPath),
    /// A chunk of a snapshot of the `full` profile, by the sha256 of its age file. Such snapshots share nothing.
    EncryptedChunk(SnapshotPath, String),
    /// The manifest of such a snapshot, an age file.
    EncryptedManifest(SnapshotPath),
    /// Why a snapshot was taken back; there is none beside others.
    Retracted(SnapshotPath),
    /// How fresh a network's newest snapshot is.
    Status(String),
    /// A public key by its id (16 hex digits), as a `minisign.pub` file.
    PublicKey(String),
    /// Pointer to the newest snapshot of a network.
    Latest(String),
    /// Pointers of all networks.
    LatestOfAll,
}

/// What names one snapshot: its network and its id (UTC date, then `.2`, `.3` for more on one day).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SnapshotPath {
    /// For example `mainnet`.
    pub network: String,
    /// For example `2026-02-05` or `2026-02-05.2`.
    pub id: String,
}

impl SnapshotPath {
    /// Joins network and id.
    pub fn new(network: impl Into<String>, id: impl Into<String>) -> Self {
        Self { network: network.into(), id: id.into() }
    }

    /// True if neither part can lead to another place: names come from outside before their signature is known.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 80
                && !name.starts_with('.')
                && !name.contains("..")
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        plain(&self.network) && plain(&self.id)
    }

    /// File name of the archive, as users see it after `curl -O`.
    pub fn archive_name(&self) -> String {
        format!("snapshot-{}.tar.zst", self.id)
    }

    /// Content of [`Key::Checksum`] for an archive of this checksum (`sha256:` + hex digest): what `sha256sum -c` takes beside it.
    #[must_use]
    pub fn checksum_line(&self, checksum: &str) -> String {
        format!("{}  {}\n", checksum.strip_prefix("sha256:").unwrap_or(checksum), self.archive_name())
    }
}

impl fmt::Display for SnapshotPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(sha256) => write!(f, "chunks/{}/{sha256}.zst", sha256.get(..2).unwrap_or_default()),
            Self::Archive(path) => write!(f, "{path}/{}", path.archive_name()),
            Self::Checksum(path) => write!(f, "{path}/snapshot.sha256"),
            Self::Manifest(path) => write!(f, "{path}/manifest.json"),
            Self::Pointer(path) => write!(f, "{path}/latest.json"),
            Self::Drill(path) => write!(f, "{path}/drill.json"),
            Self::EncryptedChunk(path, sha256) => write!(f, "{path}/{sha256}.zst.age"),
            Self::EncryptedManifest(path) => write!(f, "{path}/manifest.json.age"),
            Self::Retracted(path) => write!(f, "{path}/retracted.json"),
            Self::Status(network) => write!(f, "{network}/status.json"),
            Self::Signature(signed) => write!(f, "{signed}.minisig"),
            Self::PublicKey(id) => write!(f, "signing-keys/{id}.pub"),
            Self::Latest(network) => write!(f, "{network}/latest.json"),
            Self::LatestOfAll => f.write_str("latest.json"),
        }
    }
}

impl Key {
    /// Where the signature of this object lies.
    #[must_use]
    pub fn signature(&self) -> Self {
        Self::Signature(Box::new(self.clone()))
    }

    /// sha256 (hex) of the object, where it is its name.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Chunk(sha256) | Self::EncryptedChunk(_, sha256) => Some(sha256),
            _ => None,
        }
    }

    /// Media type and cache rule of the object: data objects never change, pointers do.
    pub fn headers(&self) -> (&'static str, &'static str) {
        const IMMUTABLE: &str = "public, max-age=31536000, immutable";
        const REPLACED: &str = "public, max-age=60";
        match self {
            // A signature lives as long as what it signs.
            Self::Signature(signed) => ("text/plain; charset=utf-8", signed.headers().1),
            Self::Chunk(_) | Self::Archive(_) => ("application/zstd", IMMUTABLE),
            Self::EncryptedChunk(..) | Self::EncryptedManifest(_) => ("application/octet-stream", "private, no-store"),
            Self::Checksum(_) | Self::PublicKey(_) => ("text/plain; charset=utf-8", IMMUTABLE),
            Self::Manifest(_) | Self::Pointer(_) => ("application/json", IMMUTABLE),
            Self::Latest(_) | Self::LatestOfAll | Self::Status(_) | Self::Retracted(_) | Self::Drill(_) => {
                ("application/json", REPLACED)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_published_layout() {
        let path = SnapshotPath::new("mainnet", "2026-02-05.2");
        assert_eq!(Key::Chunk("abcd".into()).to_string(), "chunks/ab/abcd.zst");
        assert_eq!(Key::Archive(path.clone()).to_string(), "mainnet/2026-02-05.2/snapshot-2026-02-05.2.tar.zst");
        assert_eq!(Key::Checksum(path.clone()).to_string(), "mainnet/2026-02-05.2/snapshot.sha256");
        assert_eq!(Key::Manifest(path.clone()).to_string(), "mainnet/2026-02-05.2/manifest.json");
        assert_eq!(Key::Manifest(path.clone()).signature().to_string(), "mainnet/2026-02-05.2/manifest.json.minisig");
        assert_eq!(Key::Pointer(path.clone()).to_string(), "mainnet/2026-02-05.2/latest.json");
        assert_eq!(Key::Drill(path.clone()).signature().to_string(), "mainnet/2026-02-05.2/drill.json.minisig");
        assert_eq!(Key::Drill(path.clone()).signature().headers().1, Key::Drill(path.clone()).headers().1);
        assert_eq!(Key::EncryptedChunk(path.clone(), "ab".into()).to_string(), "mainnet/2026-02-05.2/ab.zst.age");
        assert_eq!(Key::EncryptedManifest(path.clone()).to_string(), "mainnet/2026-02-05.2/manifest.json.age");
        assert_eq!(Key::Retracted(path).to_string(), "mainnet/2026-02-05.2/retracted.json");
        assert_eq!(Key::Status("mainnet".into()).to_string(), "mainnet/status.json");
        assert_eq!(Key::PublicKey("0123456789ABCDEF".into()).to_string(), "signing-keys/0123456789ABCDEF.pub");
        assert_eq!(Key::Latest("mainnet".into()).to_string(), "mainnet/latest.json");
        assert_eq!(Key::LatestOfAll.to_string(), "latest.json");
    }
}
