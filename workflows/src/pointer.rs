//! The two `latest.json`: what may be pointed at, and how they are moved.
//!
//! Invariants: nobody is sent to a snapshot of which an object is missing or of another size, that a restore drill disproved, or
//! that is another network's; and a pointer is replaced by compare-and-swap only, forwards unless a person says otherwise.

use bytes::Bytes;
use engine::StepError;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::{Archive, Manifest, Pointer, Pointers};
use snapshot::store::{Store, StoreError};

use crate::catalog;
use crate::newest::{self, Reference};
use crate::services::Services;
use crate::step_error::classify;

/// Questions to the bucket under way at once.
const PARALLEL_HEADS: usize = 32;

/// Which signatures readers ask for before they believe a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// None: the service had no key.
    Not,
    /// Those of the manifest and of the checksum; the pointer is not written yet.
    Objects,
    /// The pointer's too.
    All,
}

impl Signed {
    /// Of a snapshot whose pointer names a signature, or none.
    pub(crate) fn with_pointer(signed: bool) -> Self {
        if signed { Self::All } else { Self::Not }
    }

    fn keys(self, path: &SnapshotPath) -> Vec<Key> {
        let objects = [Key::Manifest(path.clone()), Key::Checksum(path.clone()), Key::Pointer(path.clone())];
        let count = match self {
            Self::Not => 0,
            Self::Objects => 2,
            Self::All => 3,
        };
        objects[..count].iter().map(Key::signature).collect()
    }
}

/// Reads the manifest back and makes sure that all it names, and all that readers check it by, is there, before anybody is sent to it.
pub(crate) async fn complete(services: &Services, snapshot: &Reference, signed: Signed) -> Result<Manifest, StepError> {
    examine(services, snapshot, signed).await?.map_err(|problem| StepError::fail(std::io::Error::other(problem)))
}

/// Looks whether a snapshot is whole: its manifest, or what is wrong with it. An error only says that nobody could look.
async fn examine(services: &Services, snapshot: &Reference, signed: Signed) -> Result<Result<Manifest, String>, StepError> {
    let Some(manifest) = snapshot.find(services).await? else { return Ok(Err(snapshot.gone())) };
    if (&manifest.network, &manifest.snapshot_id) != (&snapshot.network, &snapshot.id) {
        let named = format!("{}/{}", manifest.network, manifest.snapshot_id);
        return Ok(Err(format!("the manifest of {}/{} says that it is {named}", snapshot.network, snapshot.id)));
    }
    let what = match lacking(services, &manifest).await? {
        None => unsigned(services, &manifest.path(), signed).await?,
        lacking => lacking,
    };
    Ok(what.map_or(Ok(manifest), Err))
}

/// What of all that a manifest names, and of what is checked by it, is missing or not what it says.
pub(crate) async fn lacking(services: &Services, manifest: &Manifest) -> Result<Option<String>, StepError> {
    let chunks = manifest.chunks.iter().map(|chunk| (Key::Chunk(chunk.sha256.clone()), chunk.bytes));
    let archive = (Key::Archive(manifest.path()), manifest.size_bytes);
    let objects = chunks.chain((manifest.archive == Archive::Stored).then_some(archive));
    let store = &services.store;
    let questions: Vec<_> = objects.map(|(key, bytes)| problem(store.clone(), key, bytes).boxed()).collect();
    let mut problems: Vec<Option<String>> = stream::iter(questions).buffer_unordered(PARALLEL_HEADS).try_collect().await?;
    // Small, and no restore begins without them: read, since the manifest does not say their sizes.
    let sha256 = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let schema = Key::Chunk(manifest.schema.sha256.clone());
    problems.push(differs(store, schema, |bytes| sha256(bytes) == manifest.schema.sha256).await?);
    let line = manifest.path().checksum_line(&manifest.checksum);
    problems.push(differs(store, Key::Checksum(manifest.path()), |bytes| bytes == line.as_bytes()).await?);
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    let shown = problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    let what = || format!("{} objects of {} are not as its manifest says: {shown}", problems.len(), manifest.snapshot_id);
    Ok((!problems.is_empty()).then(what))
}

async fn problem(store: Store, key: Key, bytes: u64) -> Result<Option<String>, StepError> {
    Ok(match store.head(&key).await.map_err(classify)? {
        None => Some(format!("{key} is missing")),
        Some(meta) if meta.bytes != bytes => Some(format!("{key} has {} bytes instead of {bytes}", meta.bytes)),
        Some(_) => None,
    })
}

async fn differs(store: &Store, key: Key, is_right: impl Fn(&[u8]) -> bool) -> Result<Option<String>, StepError> {
    Ok(match store.get(&key).await.map_err(classify)? {
        None => Some(format!("{key} is missing")),
        Some((bytes, _)) if is_right(&bytes) => None,
        Some(_) => Some(format!("{key} is damaged")),
    })
}

/// The first signature that readers would look for in vain.
async fn unsigned(services: &Services, path: &SnapshotPath, signed: Signed) -> Result<Option<String>, StepError> {
    for key in signed.keys(path) {
        if services.store.head(&key).await.map_err(classify)?.is_none_or(|meta| meta.bytes == 0) {
            return Ok(Some(format!("{key} is missing, so no reader would believe the snapshot")));
        }
    }
    Ok(None)
}

/// Before a pointer that changed while it was looked at is looked at again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// From where pointers may be moved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move<'a> {
    /// From what is older.
    Forwards,
    /// From whatever is there: a person said so.
    Anywhere,
    /// From this snapshot alone, which was withdrawn: what was promoted meanwhile stays.
    Away(&'a str),
}

impl Move<'_> {
    /// The new pointer, or `None` where the one that is there stays.
    fn choose(self, there: Option<&Pointer>, pointer: &Pointer) -> Option<Pointer> {
        let moves = match self {
            Self::Forwards => there.is_none_or(|there| there.sequence < pointer.sequence),
            Self::Anywhere => there != Some(pointer),
            Self::Away(withdrawn) => there.is_some_and(|there| there.snapshot_id == withdrawn),
        };
        moves.then(|| pointer.clone())
    }
}

/// Moves both pointers to a snapshot, each from where it may be moved.
pub(crate) async fn point(services: &Services, pointer: &Pointer, how: Move<'_>) -> Result<(), StepError> {
    point_in(&services.store, pointer, how).await
}

/// As [`point`], in another bucket.
pub(crate) async fn point_in(store: &Store, pointer: &Pointer, how: Move<'_>) -> Result<(), StepError> {
    let latest = Key::Latest(pointer.network.clone());
    swap(store, &latest, |there: Option<Pointer>| how.choose(there.as_ref(), pointer), |pointer| Ok(pointer.to_bytes())).await?;
    let choose_among = |there: Option<Pointers>| {
        let mut all = there.unwrap_or_default();
        let next = how.choose(all.networks.get(&pointer.network), pointer)?;
        all.networks.insert(pointer.network.clone(), next);
        Some(all)
    };
    swap(store, &Key::LatestOfAll, choose_among, |all| serde_json::to_vec_pretty(all).map_err(StepError::fail)).await
}

/// Where the pointers are after they left a withdrawn snapshot.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// The snapshot that `latest` names now.
    pub(crate) latest: Option<String>,
    /// Snapshots that it could have gone to, and why it did not.
    pub(crate) passed_over: Vec<(String, String)>,
}

/// Moves both pointers away from a withdrawn snapshot, to the newest that is left, or takes them away. May be run again after
/// a crash between the two.
pub(crate) async fn leave(services: &Services, network: &str, withdrawn: &str) -> Result<Left, StepError> {
    let mut left = Left::default();
    if let Some(there) = newest::pointer(services, network).await?.filter(|there| there.snapshot_id != withdrawn) {
        point(services, &there, Move::Away(withdrawn)).await?;
        return Ok(Left { latest: Some(there.snapshot_id), ..left });
    }
    for row in catalog::promoted(&services.control, network).await.map_err(classify)? {
        if row.is_disproved() {
            left.passed_over.push((row.id, "a restore drill found that it does not restore to what its manifest says".into()));
            continue;
        }
        let manifest_sha256 = row.manifest_sha256.clone().unwrap_or_default();
        let candidate = Reference { network: network.to_owned(), id: row.id.clone(), manifest_sha256 };
        let Some(older) = stored(services, &candidate).await? else {
            left.passed_over.push((row.id, "its pointer is not in the bucket".into()));
            continue;
        };
        let signed = Signed::with_pointer(older.signature.is_some());
        if let Err(problem) = examine(services, &candidate, signed).await? {
            left.passed_over.push((row.id, problem));
            continue;
        }
        point(services, &older, Move::Away(withdrawn)).await?;
        return Ok(Left { latest: newest::pointer(services, network).await?.map(|there| there.snapshot_id), ..left });
    }
    take_away(services, network, withdrawn).await?;
    Ok(left)
}

/// The pointer as it was when the snapshot was promoted, with its signature beside it.
pub(crate) async fn stored(services: &Services, snapshot: &Reference) -> Result<Option<Pointer>, StepError> {
    let key = Key::Pointer(SnapshotPath::new(&snapshot.network, &snapshot.id));
    let Some((bytes, _)) = services.store.get(&key).await.map_err(classify)? else { return Ok(None) };
    let pointer: Option<Pointer> = serde_json::from_slice(&bytes).ok();
    Ok(pointer.filter(|pointer| Reference::of(pointer) == *snapshot))
}

/// Takes a network's pointers away, if they name this snapshot: it was withdrawn and none is left to point at.
async fn take_away(services: &Services, network: &str, id: &str) -> Result<(), StepError> {
    let without = |there: Option<Pointers>| {
        let mut all = there?;
        let named = all.networks.get(network).is_some_and(|pointer| pointer.snapshot_id == id);
        named.then(|| all.networks.remove(network))?;
        Some(all)
    };
    swap(&services.store, &Key::LatestOfAll, without, |all| serde_json::to_vec_pretty(all).map_err(StepError::fail)).await?;
    let latest = Key::Latest(network.to_owned());
    while let Some((bytes, etag)) = services.store.get(&latest).await.map_err(classify)? {
        let there: Pointer = serde_json::from_slice(&bytes).map_err(StepError::fail)?;
        if there.snapshot_id != id {
            break;
        }
        match services.store.delete_if_match(&latest, &etag).await {
            Ok(()) => break,
            // Somebody promoted another meanwhile, or took it away.
            Err(StoreError::Precondition { .. }) => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(classify(error)),
        }
    }
    Ok(())
}

/// Replaces a pointer object by what `change` makes of it, however many others try the same.
async fn swap<T>(
    store: &Store,
    key: &Key,
    change: impl Fn(Option<T>) -> Option<T>,
    bytes_of: impl Fn(&T) -> Result<Vec<u8>, StepError>,
) -> Result<(), StepError>
where
    T: for<'de> Deserialize<'de>,
{
    loop {
        let there = store.get(key).await.map_err(classify)?;
        let (old, etag) = match there {
            Some((bytes, etag)) => (Some(serde_json::from_slice(&bytes).map_err(StepError::fail)?), Some(etag)),
            None => (None, None),
        };
        let Some(new) = change(old) else { return Ok(()) };
        let body = Bytes::from(bytes_of(&new)?);
        match store.put_if_match(key, body, etag.as_deref()).await {
            Ok(_) => return Ok(()),
            // Missing: S3 answers so to a condition on an object that was deleted meanwhile.
            Err(StoreError::Precondition { .. } | StoreError::Missing { .. }) => {}
            Err(error) => return Err(classify(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(sequence: u64) -> Pointer {
        Pointer {
            version: 1,
            network: "mainnet".into(),
            profile: snapshot::manifest::Profile::Public,
            snapshot_id: format!("s{sequence}"),
            sequence,
            created_at: String::new(),
            expires_at: None,
            block_height: 0,
            block_hash: String::new(),
            manifest: String::new(),
            manifest_sha256: String::new(),
            url: String::new(),
            checksum: String::new(),
            size_bytes: 0,
            drill: None,
            archive: Archive::Stored,
            signature: None,
        }
    }

    #[test]
    fn a_pointer_never_goes_backwards_unless_a_person_says_so() {
        let chosen = |how: Move<'_>, there: Option<u64>| how.choose(there.map(pointer).as_ref(), &pointer(2)).is_some();
        assert!(chosen(Move::Forwards, None) && chosen(Move::Forwards, Some(1)));
        assert!(!chosen(Move::Forwards, Some(2)) && !chosen(Move::Forwards, Some(3)));
        assert!(chosen(Move::Anywhere, Some(3)) && chosen(Move::Anywhere, None) && !chosen(Move::Anywhere, Some(2)));
    }

    #[test]
    fn leaving_a_withdrawn_snapshot_takes_nobody_away_from_another() {
        let chosen = |there: Option<u64>| Move::Away("s3").choose(there.map(pointer).as_ref(), &pointer(2)).is_some();
        assert!(chosen(Some(3)) && !chosen(Some(4)) && !chosen(Some(1)) && !chosen(None));
    }
}
