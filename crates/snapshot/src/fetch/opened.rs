//! From "the newest snapshot" to a manifest that may be believed: signature, network, sequence, expiry.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{FetchError, Seen, Source};
use crate::key::{Key, SnapshotPath};
use crate::manifest::{Manifest, ManifestError, Pointer, Pointers};
use crate::sign::{SignatureError, TrustedKeys};

/// Which snapshot is wanted, and what is believed.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Network; `None`: the only one that is published.
    pub network: Option<String>,
    /// Snapshot id; `None`: the newest.
    pub id: Option<String>,
    /// Keys that are believed.
    pub trusted: TrustedKeys,
    /// What was seen before; `None`: no memory.
    pub seen: Option<Seen>,
    /// Take a `latest` that is older than one seen before, or past its end, and a snapshot that was taken back.
    pub allow_rollback: bool,
}

/// A manifest whose signature was checked.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes; where it is encrypted, what was inside.
    pub bytes: bytes::Bytes,
    /// sha256 (hex) of what was signed: of the encrypted bytes where it is encrypted.
    pub sha256: String,
    /// Id of the key that signed them; empty where the caller knew their digest.
    pub signed_by: String,
}

/// A snapshot that is not believed, or not there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("cannot read what is published")]
    Fetch(#[from] FetchError),
    /// What was seen before cannot be read, so being led back would not be noticed.
    #[error("cannot read which snapshots were seen before, in {path}: mend or remove that file, or use --allow-rollback")]
    Memory {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Its signature is missing.
    #[error("{key} has no signature, so it cannot be told from a forged one")]
    Unsigned {
        /// The object.
        key: String,
    },
    /// Its signature is wrong.
    #[error("the snapshot is not believed")]
    Signature(#[from] SignatureError),
    /// It is not a manifest.
    #[error("what is signed cannot be used")]
    Manifest(#[from] ManifestError),
    /// Not a pointer.
    #[error("{key} cannot be read")]
    Pointer {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Signed, but not what was asked for.
    #[error("{key} is signed, but is {found} instead of {expected}")]
    Other {
        /// The object.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Older than one seen before.
    #[error("`latest` is snapshot {id} with sequence {found}, but sequence {seen} was seen here before: you are being led back")]
    Rollback {
        /// The snapshot.
        id: String,
        /// Its sequence.
        found: u64,
        /// What was seen.
        seen: u64,
    },
    /// Too old to be the newest.
    #[error(
        "`latest` is snapshot {id}, which said that a newer one would be there by {expired}: somebody holds newer ones back, or none was published"
    )]
    Expired {
        /// The snapshot.
        id: String,
        /// When it ended.
        expired: String,
    },
    /// Its publisher took it back.
    #[error("snapshot {id} was taken back by its publisher: {reason}")]
    Retracted {
        /// The snapshot.
        id: String,
        /// Why, in the publisher's words.
        reason: String,
    },
    /// No such snapshot.
    #[error("no snapshot {wanted} is published")]
    None {
        /// What was asked for.
        wanted: String,
    },
    /// Several networks.
    #[error("several networks are published: choose one of {networks} with --network")]
    SeveralNetworks {
        /// Their names.
        networks: String,
    },
}

/// Finds a snapshot and believes it only if one of the trusted keys signed it.
///
/// # Errors
/// [`OpenError`].
pub async fn open(source: &Source, wanted: &Wanted) -> Result<Opened, OpenError> {
    if wanted.trusted.is_empty() {
        return Err(SignatureError::NoKeys.into());
    }
    let network = match &wanted.network {
        Some(network) => network.clone(),
        None => only_network(source).await?,
    };
    let Some(id) = &wanted.id else { return newest(source, wanted, &network).await };
    let path = SnapshotPath::new(network, id);
    let opened = manifest(source, &path, &wanted.trusted).await?;
    let opened = opened.ok_or_else(|| OpenError::None { wanted: path.to_string() })?;
    if !wanted.allow_rollback {
        refuse_retracted(source, path).await?;
    }
    Ok(opened)
}

/// Longest reason that is shown, characters.
const REASON_CHARS: usize = 500;

/// The notice is not signed: it can only keep readers away, which whoever could forge it can do anyway.
async fn refuse_retracted(source: &Source, path: SnapshotPath) -> Result<(), OpenError> {
    let id = path.to_string();
    let notice = match source.small(&Key::Retracted(path)).await {
        Ok(Some(notice)) => notice,
        Ok(None) => return Ok(()),
        // A bucket that nobody may list answers so where there is no such object; its manifest was just read.
        Err(error) if error.is_forbidden() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let notice: serde_json::Value = serde_json::from_slice(&notice).unwrap_or_default();
    let said = notice["reason"].as_str().unwrap_or("it does not say why");
    // Not signed, so nothing that moves a terminal's cursor.
    let reason = said.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect();
    Err(OpenError::Retracted { id, reason })
}

/// Finds the snapshot whose manifest has this digest, which the caller has from a place it trusts: no signature is asked for.
///
/// # Errors
/// [`OpenError`].
pub async fn open_known(source: &Source, path: &SnapshotPath, sha256: &str) -> Result<Opened, OpenError> {
    let key = Key::Manifest(path.clone());
    let bytes = source.small(&key).await?.ok_or_else(|| OpenError::None { wanted: path.to_string() })?;
    let found = hex::encode(Sha256::digest(&bytes));
    expect(&key, "sha256", sha256, &found)?;
    Ok(Opened { manifest: Manifest::from_bytes(&bytes)?, bytes, sha256: found, signed_by: String::new() })
}

/// The index of networks is not signed: it is a hint only, since the pointer found by it is.
async fn only_network(source: &Source) -> Result<String, OpenError> {
    let none = || OpenError::None { wanted: "of any network".into() };
    let key = Key::LatestOfAll;
    let bytes = source.small(&key).await?.ok_or_else(none)?;
    let all: Pointers = serde_json::from_slice(&bytes).map_err(|source| OpenError::Pointer { key: key.to_string(), source })?;
    let mut networks = all.networks.into_keys();
    match (networks.next(), networks.next()) {
        (None, _) => Err(none()),
        (Some(only), None) => Ok(only),
        (Some(first), Some(second)) => {
            let rest = networks.map(|name| format!(", {name}")).collect::<String>();
            Err(OpenError::SeveralNetworks { networks: format!("{first}, {second}{rest}") })
        }
    }
}

async fn newest(source: &Source, wanted: &Wanted, network: &str) -> Result<Opened, OpenError> {
    let key = Key::Latest(network.to_owned());
    let bytes = source.small(&key).await?.ok_or_else(|| OpenError::None { wanted: format!("of {network}") })?;
    let pointer: Pointer =
        serde_json::from_slice(&bytes).map_err(|source| OpenError::Pointer { key: key.to_string(), source })?;
    let path = pointer.path();
    expect(&key, "network", network, &path.network)?;
    expect(&key, "profile", &source.profile().to_string(), &pointer.profile.to_string())?;
    if !path.is_plain() {
        return Err(OpenError::Other { key: key.to_string(), expected: "a snapshot's name".into(), found: path.to_string() });
    }
    // Its signature lies under the snapshot's own name, so a pointer that moves meanwhile is no contradiction.
    let own = Key::Pointer(path.clone());
    check(source, &own, &bytes, &wanted.trusted).await?;
    refuse_old(wanted, &pointer)?;
    let opened = manifest(source, &path, &wanted.trusted).await?;
    let opened = opened.ok_or_else(|| FetchError::Missing { key: pointer.manifest.clone() })?;
    expect(&Manifest::key(source.profile(), path), "sha256", &pointer.manifest_sha256, &opened.sha256)?;
    if let Some(seen) = &wanted.seen
        && let Err(error) = seen.remember(&pointer, &wanted.trusted.ids())
    {
        tracing::warn!(%error, "cannot remember the newest snapshot seen");
    }
    Ok(opened)
}

fn refuse_old(wanted: &Wanted, pointer: &Pointer) -> Result<(), OpenError> {
    if wanted.allow_rollback {
        return Ok(());
    }
    let seen = match &wanted.seen {
        None => 0,
        Some(memory) => memory
            .newest(pointer, &wanted.trusted.ids())
            .map_err(|source| OpenError::Memory { path: memory.path().display().to_string(), source })?,
    };
    if pointer.sequence < seen {
        return Err(OpenError::Rollback { id: pointer.snapshot_id.clone(), found: pointer.sequence, seen });
    }
    let ends = pointer.expires_at.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    match ends {
        Some(ends) if ends < Utc::now() => {
            Err(OpenError::Expired { id: pointer.snapshot_id.clone(), expired: ends.to_rfc3339() })
        }
        _ => Ok(()),
    }
}

async fn manifest(source: &Source, path: &SnapshotPath, trusted: &TrustedKeys) -> Result<Option<Opened>, OpenError> {
    let key = Manifest::key(source.profile(), path.clone());
    let Some(object) = source.small(&key).await? else { return Ok(None) };
    let signed_by = check(source, &key, &object, trusted).await?;
    let sha256 = hex::encode(Sha256::digest(&object));
    let bytes = source.decrypted(&key, object).await?;
    let manifest = Manifest::from_bytes(&bytes)?;
    expect(&key, "snapshot", &path.to_string(), &manifest.path().to_string())?;
    expect(&key, "profile", &source.profile().to_string(), &manifest.profile.to_string())?;
    Ok(Some(Opened { manifest, bytes, sha256, signed_by }))
}

async fn check(source: &Source, key: &Key, bytes: &[u8], trusted: &TrustedKeys) -> Result<String, OpenError> {
    let signature = source.small(&key.signature()).await?;
    let signature = signature.ok_or_else(|| OpenError::Unsigned { key: key.to_string() })?;
    Ok(trusted.verify(key, bytes, &signature)?)
}

fn expect(key: &Key, what: &str, expected: &str, found: &str) -> Result<(), OpenError> {
    if expected == found {
        return Ok(());
    }
    Err(OpenError::Other { key: key.to_string(), expected: format!("{what} {expected}"), found: format!("{what} {found}") })
}
