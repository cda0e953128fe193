//! The manifest: what a snapshot is. Written last, never changed; once it exists, the snapshot exists.
//!
//! It is a complete list of chunks (no delta chains) and holds every field of the product's example. JSON, snake case,
//! fields in this order; fields of newer versions survive being read and written again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::chunk::{Chunk, Heights};
use crate::columns::TableShape;
use crate::cut::ChainLink;
use crate::drill;
use crate::key::{Key, SnapshotPath};

/// Version of the format this program writes.
pub const VERSION: u32 = 1;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, 1.
    pub version: u32,
    /// For example `mainnet`.
    pub network: String,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Profile::is_public")]
    pub profile: Profile,
    /// UTC date, then `.2`, `.3` for more on one day.
    pub snapshot_id: String,
    /// Counts the snapshots of a network from 1; a reader that has seen a higher one is being rolled back.
    pub sequence: u64,
    /// Id of the snapshot before, if any.
    pub previous: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC: after this time nobody should believe any more that it is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Highest block in it; `index_progress` says the same.
    pub block_height: u64,
    /// Hash of that block.
    pub block_hash: String,
    /// Time of that block, seconds since 1970.
    pub block_time: u64,
    /// Bitcoin height of that block.
    pub burn_block_height: u64,
    /// Lowest and highest block.
    pub coverage: Heights,
    /// How deep the highest block lay when the snapshot was cut.
    pub finality: Finality,
    /// `pg_dump_directory`; of the `full` profile, which has no archive, `copy_age`.
    pub format: String,
    /// Always `zstd`.
    pub compression: String,
    /// `sha256:` + hex digest of the archive; empty where there is none.
    pub checksum: String,
    /// Where the archive is; empty where there is none.
    pub url: String,
    /// Whether it lies there, or is made as it is read.
    #[serde(default)]
    pub archive: Archive,
    /// Size of the archive in bytes; of the `full` profile of all its chunks.
    pub size_bytes: u64,
    /// Size of the extracted directory in bytes; of the `full` profile of all COPY text.
    pub raw_bytes: u64,
    /// Rows and COPY bytes of each table.
    pub tables: BTreeMap<String, TableTotals>,
    /// Columns and order of each table, in load order.
    pub shapes: Vec<TableShape>,
    /// The `toc.dat` of the archive, stored as a chunk: the schema of `public`.
    pub schema: SchemaObject,
    /// Last applied migration of the original.
    pub schema_version: Option<String>,
    /// Program and server that made it.
    pub producer: Producer,
    /// Quality of the rows.
    pub audit: Audit,
    /// Every chunk, in load order.
    pub chunks: Vec<Chunk>,
    /// The ranges of heights that chunks were cut in, lowest first: what the next snapshot compares before it reads rows.
    #[serde(default)]
    pub ranges: Vec<RangeRecord>,
    /// Where the sequences of the `full` profile stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<SequenceValue>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Where the bytes of an archive come from. They are the same either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Archive {
    /// The bucket holds it.
    #[default]
    Stored,
    /// The service splices it from chunks for whoever asks.
    OnRequest,
}

impl Archive {
    /// As manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::OnRequest => "on_request",
        }
    }

    fn is_stored(&self) -> bool {
        *self == Self::Stored
    }
}

/// What a snapshot holds, and for whom it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The chain up to a final height, for everybody.
    #[default]
    Public,
    /// Every table of the indexed database, tenants' rows too: encrypted, for its operators alone.
    Full,
}

impl Profile {
    /// True for what everybody may read.
    #[must_use]
    pub fn is_public(&self) -> bool {
        *self == Self::Public
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_public() { "public" } else { "full" })
    }
}

/// Where a sequence stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct SequenceValue {
    /// Schema and name, quoted.
    pub name: String,
    /// The value last given, or the first to give.
    pub last_value: i64,
    /// Whether it was given.
    pub is_called: bool,
}

/// Rule by which the height was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finality {
    /// Bitcoin blocks asked for.
    pub confirmations: u32,
    /// Bitcoin height of the chain's tip at that moment.
    pub burn_tip: u64,
}

/// Size of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTotals {
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
}

/// The schema section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaObject {
    /// sha256 (hex) of the compressed `toc.dat`: its name among the chunks.
    pub sha256: String,
    /// sha256 (hex) of the `toc.dat`.
    pub content_sha256: String,
    /// Size of the `toc.dat`.
    pub raw_bytes: u64,
}

/// What made the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Version of this program.
    pub version: String,
    /// Version of the server it was cut from, for example `15.18`.
    pub postgres: String,
}

/// A range of heights as it was when it was cut. Its row counts are those of its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRecord {
    /// Heights covered.
    pub heights: Heights,
    /// Full and final: its boundaries, and the splits of its chunks, never move again.
    pub sealed: bool,
    /// Digest (hex sha256) of the identity of its blocks, see [`crate::fingerprint`].
    pub chain_sha256: String,
    /// Its ends, by which neighbours are joined.
    #[serde(flatten)]
    pub link: ChainLink,
    /// Quality of its rows; it travels with the range as long as the range is not cut again.
    #[serde(default)]
    pub audit: Audit,
}

/// Rows and bytes of each table.
pub fn totals(chunks: &[Chunk]) -> BTreeMap<String, TableTotals> {
    let mut totals = BTreeMap::<String, TableTotals>::new();
    for chunk in chunks {
        let table = totals.entry(chunk.table.clone()).or_default();
        table.rows += chunk.rows;
        table.bytes += chunk.raw_bytes;
    }
    totals
}

impl Manifest {
    /// Where the snapshot's own objects lie.
    pub fn path(&self) -> SnapshotPath {
        SnapshotPath::new(&self.network, &self.snapshot_id)
    }

    /// Where an object that is named by its digest lies.
    #[must_use]
    pub fn object(&self, sha256: &str) -> Key {
        match self.profile {
            Profile::Public => Key::Chunk(sha256.to_owned()),
            Profile::Full => Key::EncryptedChunk(self.path(), sha256.to_owned()),
        }
    }

    /// The object that the manifest of a snapshot is.
    #[must_use]
    pub fn key(profile: Profile, path: SnapshotPath) -> Key {
        match profile {
            Profile::Public => Key::Manifest(path),
            Profile::Full => Key::EncryptedManifest(path),
        }
    }

    /// Chunks of one range, in load order.
    pub fn chunks_in(&self, range: Heights) -> impl Iterator<Item = &Chunk> {
        let inside = move |heights: Heights| range.from <= heights.from && heights.to <= range.to;
        self.chunks.iter().filter(move |chunk| chunk.heights.is_some_and(inside))
    }

    /// The bytes that are published.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers and maps with text keys cannot fail to serialise.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is not JSON of this form, or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version != VERSION {
            return Err(ManifestError::Version { found: manifest.version });
        }
        Ok(manifest)
    }

    /// Address above the key of the archive. A loopback address was that of a service's earlier start: `today` takes its place.
    #[must_use]
    pub fn archive_base<'a>(&'a self, today: &'a str) -> &'a str {
        address_above(&self.url, &Key::Archive(self.path()).to_string(), today)
    }

    /// The pointer that says this is the newest; `signed` if a signature will lie beside it.
    pub fn pointer(&self, manifest_sha256: String, signed: bool) -> Pointer {
        Pointer {
            version: VERSION,
            network: self.network.clone(),
            profile: self.profile,
            snapshot_id: self.snapshot_id.clone(),
            sequence: self.sequence,
            created_at: self.created_at.clone(),
            expires_at: self.expires_at.clone(),
            block_height: self.block_height,
            block_hash: self.block_hash.clone(),
            manifest: Self::key(self.profile, self.path()).to_string(),
            manifest_sha256,
            url: self.url.clone(),
            archive: self.archive,
            checksum: self.checksum.clone(),
            size_bytes: self.size_bytes,
            drill: None,
            signature: signed.then(|| Key::Pointer(self.path()).signature().to_string()),
        }
    }
}

fn address_above<'a>(url: &'a str, key: &str, today: &'a str) -> &'a str {
    let loopback = url.starts_with("http://127.0.0.1:") || url.starts_with("http://[::1]:");
    url.strip_suffix(key).filter(|_| !loopback).unwrap_or(today).trim_end_matches('/')
}

impl Pointer {
    /// The bytes that are published and signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings and numbers cannot fail to serialise.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Where the snapshot's own objects lie.
    pub fn path(&self) -> SnapshotPath {
        SnapshotPath::new(&self.network, &self.snapshot_id)
    }
}

/// `<network>/latest.json`: which snapshot is the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Format version, 1.
    pub version: u32,
    /// For example `mainnet`.
    pub network: String,
    /// What the snapshot holds.
    #[serde(default, skip_serializing_if = "Profile::is_public")]
    pub profile: Profile,
    /// The snapshot.
    pub snapshot_id: String,
    /// Its sequence number; `latest` never goes backwards.
    pub sequence: u64,
    /// When it was cut.
    pub created_at: String,
    /// After this time a newer one should be there: a reader who finds none is being held back, or the publisher stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Its height.
    pub block_height: u64,
    /// Hash of its highest block.
    pub block_hash: String,
    /// Key of its manifest, relative to the bucket.
    pub manifest: String,
    /// sha256 (hex) of the manifest.
    pub manifest_sha256: String,
    /// Where the archive is.
    pub url: String,
    /// Whether it lies there; left out if it does.
    #[serde(default, skip_serializing_if = "Archive::is_stored")]
    pub archive: Archive,
    /// `sha256:` + hex digest of the archive.
    pub checksum: String,
    /// Size of the archive in bytes.
    pub size_bytes: u64,
    /// The restore drill that the snapshot passed before it was promoted; `None`: the program knew none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<drill::Summary>,
    /// Key of this pointer's signature, relative to the bucket. It lies under the snapshot's own name and is written before the
    /// pointer, so whoever sees a pointer finds the signature that belongs to it, however often `latest` moves meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Root `latest.json`: the pointers of all networks in one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointers {
    /// By network.
    pub networks: BTreeMap<String, Pointer>,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest.
    #[error("not a snapshot manifest")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("the manifest is of format version {found}, this program reads version {VERSION}; use a newer program")]
    Version {
        /// What it says.
        found: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_where_the_manifest_says_unless_that_was_this_machine() {
        let key = "mainnet/1/a.tar.zst";
        let base = |url: &'static str| address_above(url, key, "http://127.0.0.1:9/");
        assert_eq!(base("https://old.example/x/mainnet/1/a.tar.zst"), "https://old.example/x");
        assert_eq!(base("http://127.0.0.1:8/mainnet/1/a.tar.zst"), "http://127.0.0.1:9");
        assert_eq!(base(""), "http://127.0.0.1:9", "the full profile has no archive");
    }
}
