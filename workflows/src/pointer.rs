//! The two `latest.json`: what may be pointed at, and how they are moved.
//!
//! Invariants: nobody is sent to a snapshot of which an object is missing or of another size, or to one of another network;
//! and a pointer is replaced by compare-and-swap only, forwards unless a person says otherwise.

use bytes::Bytes;
use engine::StepError;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer, Pointers};
use snapshot::store::{Store, StoreError};

use crate::newest::Reference;
use crate::services::Services;
use crate::step_error::classify;

/// Questions to the bucket under way at once.
const PARALLEL_HEADS: usize = 32;

/// Reads the manifest back and makes sure that all it names is there, before anybody is sent to it.
pub(crate) async fn complete(services: &Services, snapshot: &Reference) -> Result<Manifest, StepError> {
    let manifest = snapshot.manifest(services).await?;
    if (&manifest.network, &manifest.snapshot_id) != (&snapshot.network, &snapshot.id) {
        let named = format!("{}/{}", manifest.network, manifest.snapshot_id);
        return Err(refused(format!("the manifest of {}/{} says that it is {named}", snapshot.network, snapshot.id)));
    }
    let path = manifest.path();
    let schema = (Key::Chunk(manifest.schema.sha256.clone()), None);
    let chunks = manifest.chunks.iter().map(|chunk| (Key::Chunk(chunk.sha256.clone()), Some(chunk.bytes)));
    let objects = chunks.chain([schema, (Key::Archive(path), Some(manifest.size_bytes))]);
    let store = &services.store;
    let questions: Vec<_> = objects.map(|(key, bytes)| problem(store.clone(), key, bytes).boxed()).collect();
    let problems: Vec<Option<String>> = stream::iter(questions).buffer_unordered(PARALLEL_HEADS).try_collect().await?;
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    if problems.is_empty() {
        return Ok(manifest);
    }
    let shown = problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    Err(refused(format!("{} objects of {} are not as its manifest says: {shown}", problems.len(), snapshot.id)))
}

async fn problem(store: Store, key: Key, bytes: Option<u64>) -> Result<Option<String>, StepError> {
    Ok(match (store.head(&key).await.map_err(classify)?, bytes) {
        (None, _) => Some(format!("{key} is missing")),
        (Some(meta), Some(bytes)) if meta.bytes != bytes => Some(format!("{key} has {} bytes instead of {bytes}", meta.bytes)),
        _ => None,
    })
}

/// Moves both pointers to a snapshot, unless they are at least as new; with `back` also to an older one.
pub(crate) async fn point(services: &Services, pointer: &Pointer, back: bool) -> Result<(), StepError> {
    let choose = |there: Option<Pointer>| if back { other(there, pointer) } else { newer(there, pointer) };
    let latest = Key::Latest(pointer.network.clone());
    swap(services, &latest, choose, |pointer| Ok(pointer.to_bytes())).await?;
    let choose_among = |there: Option<Pointers>| {
        let mut all = there.unwrap_or_default();
        let next = choose(all.networks.remove(&pointer.network))?;
        all.networks.insert(pointer.network.clone(), next);
        Some(all)
    };
    swap(services, &Key::LatestOfAll, choose_among, |all| serde_json::to_vec_pretty(all).map_err(StepError::fail)).await
}

/// Takes a network's pointers away, if they name this snapshot: it was withdrawn and none is left to point at.
pub(crate) async fn take_away(services: &Services, network: &str, id: &str) -> Result<(), StepError> {
    let without = |there: Option<Pointers>| {
        let mut all = there?;
        let named = all.networks.get(network).is_some_and(|pointer| pointer.snapshot_id == id);
        named.then(|| all.networks.remove(network))?;
        Some(all)
    };
    swap(services, &Key::LatestOfAll, without, |all| serde_json::to_vec_pretty(all).map_err(StepError::fail)).await?;
    if crate::newest::pointer(services, network).await?.is_some_and(|pointer| pointer.snapshot_id == id) {
        services.store.delete(&Key::Latest(network.to_owned())).await.map_err(classify)?;
    }
    Ok(())
}

/// The new pointer, or `None` where the one that is there is at least as new.
fn newer(there: Option<Pointer>, pointer: &Pointer) -> Option<Pointer> {
    let newer = there.is_none_or(|there| there.sequence < pointer.sequence);
    newer.then(|| pointer.clone())
}

fn other(there: Option<Pointer>, pointer: &Pointer) -> Option<Pointer> {
    let other = there.is_none_or(|there| there != *pointer);
    other.then(|| pointer.clone())
}

/// Replaces a pointer object by what `change` makes of it, however many others try the same.
async fn swap<T>(
    services: &Services,
    key: &Key,
    change: impl Fn(Option<T>) -> Option<T>,
    bytes_of: impl Fn(&T) -> Result<Vec<u8>, StepError>,
) -> Result<(), StepError>
where
    T: for<'de> Deserialize<'de>,
{
    loop {
        let there = services.store.get(key).await.map_err(classify)?;
        let (old, etag) = match there {
            Some((bytes, etag)) => (Some(serde_json::from_slice(&bytes).map_err(StepError::fail)?), Some(etag)),
            None => (None, None),
        };
        let Some(new) = change(old) else { return Ok(()) };
        let body = Bytes::from(bytes_of(&new)?);
        match services.store.put_if_match(key, body, etag.as_deref()).await {
            Ok(_) => return Ok(()),
            // Missing: S3 answers so to a condition on an object that was deleted meanwhile.
            Err(StoreError::Precondition { .. } | StoreError::Missing { .. }) => {}
            Err(error) => return Err(classify(error)),
        }
    }
}

fn refused(what: String) -> StepError {
    StepError::fail(std::io::Error::other(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(sequence: u64) -> Pointer {
        Pointer {
            version: 1,
            network: "mainnet".into(),
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
            signature: None,
        }
    }

    #[test]
    fn a_pointer_never_goes_backwards_unless_a_person_says_so() {
        assert_eq!(newer(None, &pointer(1)), Some(pointer(1)));
        assert_eq!(newer(Some(pointer(1)), &pointer(2)), Some(pointer(2)));
        assert_eq!(newer(Some(pointer(2)), &pointer(2)), None);
        assert_eq!(newer(Some(pointer(3)), &pointer(2)), None);
        assert_eq!(other(Some(pointer(3)), &pointer(2)), Some(pointer(2)));
        assert_eq!(other(Some(pointer(2)), &pointer(2)), None);
    }
}
