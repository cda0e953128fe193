//! One look at the bucket: what is there, and what its manifests name.

use std::collections::{HashMap, HashSet};

use engine::StepError;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::Manifest;
use snapshot::store::{Listed, Store};

use super::rows;
use crate::resealed;
use crate::services::Services;
use crate::step_error::classify;

/// Manifests read at once; one of a large chain is some MB.
const PARALLEL_READS: usize = 4;

/// What one look saw.
pub(super) struct Look {
    /// Objects under `chunks/`, by key.
    pub(super) chunks: HashMap<String, Listed>,
    /// Keys of chunks that something names.
    pub(super) named: HashSet<String>,
}

impl Look {
    /// Chunks that nothing names.
    pub(super) fn unreferenced(&self) -> impl Iterator<Item = &Listed> {
        self.chunks.values().filter(|object| !self.named.contains(&object.key))
    }
}

/// Lists the whole bucket and reads every manifest in it, other networks' too, since chunks are shared.
pub(super) async fn look(services: &Services) -> Result<Look, StepError> {
    let (chunks, others): (Vec<Listed>, Vec<Listed>) =
        services.store.list("").await.map_err(classify)?.into_iter().partition(|object| object.key.starts_with("chunks/"));
    let mut manifests: HashSet<String> =
        others.into_iter().map(|object| object.key).filter(|key| key.ends_with("/manifest.json")).collect();
    for snapshot in rows::with_objects(&services.control).await.map_err(classify)? {
        let key = Key::Manifest(SnapshotPath::new(&snapshot.network, &snapshot.id)).to_string();
        if !manifests.contains(&key) {
            missing(services, &key, &snapshot.state).await?;
        }
        manifests.insert(key);
    }
    let reads: Vec<_> = manifests.into_iter().map(|key| names_of(services.store.clone(), key).boxed()).collect();
    let named: Vec<Vec<String>> = stream::iter(reads).buffer_unordered(PARALLEL_READS).try_collect().await?;
    let mut named: HashSet<String> = named.into_iter().flatten().collect();
    let resealed = resealed::objects(&services.control).await.map_err(classify)?;
    named.extend(resealed.into_iter().map(|sha256| Key::Chunk(sha256).to_string()));
    Ok(Look { chunks: chunks.into_iter().map(|object| (object.key.clone(), object)).collect(), named })
}

/// The catalog knows a manifest that the listing has not: one of them is wrong, and nothing may be deleted until it is clear
/// which. Only one that expired may be gone, since pruning itself was taking it away.
async fn missing(services: &Services, key: &str, state: &str) -> Result<(), StepError> {
    let there = services.store.head_at(key).await.map_err(classify)?.is_some();
    let what = match (there, state) {
        (false, "expired") => return Ok(()),
        (true, _) => {
            format!("the bucket's listing lacks {key}, which is there; nothing is deleted on the word of such a listing")
        }
        (false, _) => {
            format!(
                "{key} is gone from the bucket, so its chunks are not known; put it back, or retract the snapshot so that it expires"
            )
        }
    };
    Err(StepError::fail(std::io::Error::other(what)))
}

/// Keys of the chunks that a manifest names. None where it went since it was listed.
async fn names_of(store: Store, key: String) -> Result<Vec<String>, StepError> {
    let Some(bytes) = store.get_at(&key).await.map_err(classify)? else { return Ok(Vec::new()) };
    let unreadable = |error| {
        let what = format!("{key} cannot be read ({error}); nothing is deleted until it is known what it names");
        StepError::fail(std::io::Error::other(what))
    };
    let manifest = Manifest::from_bytes(&bytes).map_err(unreadable)?;
    let chunks = manifest.chunks.into_iter().map(|chunk| chunk.sha256);
    Ok(chunks.chain([manifest.schema.sha256]).map(|sha256| Key::Chunk(sha256).to_string()).collect())
}
