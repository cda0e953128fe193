//! `snapshots download --chunks`: a snapshot's objects into a directory laid out like the bucket, from which `restore --from DIR` reads.

use std::path::{Path, PathBuf};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use snapshot::fetch::{FetchError, Opened, Source};
use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer, Pointers};

use super::published::{PublishedArgs, not_loaded};
use crate::exit::{Exit, Failure};
use crate::output::{Output, bytes};

/// Objects under way at once.
const AT_ONCE: usize = 4;

/// An object named by its digest.
struct Wanted {
    key: Key,
    sha256: String,
    /// `None` where nobody noted it: the schema.
    bytes: Option<u64>,
}

/// Mirrors the snapshot; what an earlier run left complete is read and checked, not fetched.
pub(super) async fn run(published: &PublishedArgs, dir: &Path, output: Output) -> anyhow::Result<()> {
    let source = published.source()?;
    let opened = published.open(&source).await?;
    let manifest = &opened.manifest;
    refuse_other_profile(dir, manifest).await?;
    let object = |sha256: &str, bytes| Wanted { key: manifest.object(sha256), sha256: sha256.to_owned(), bytes };
    let mut wanted: Vec<Wanted> = manifest.chunks.iter().map(|chunk| object(&chunk.sha256, Some(chunk.bytes))).collect();
    wanted.push(object(&manifest.schema.sha256, None));
    wanted.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    wanted.dedup_by(|a, b| a.sha256 == b.sha256);
    let total: u64 = wanted.iter().filter_map(|object| object.bytes).sum();
    let mut progress = output.progress("mirroring", total);
    let mut done = 0;
    let mut mirroring = stream::iter(&wanted).map(|object| mirror(&source, dir, object)).buffer_unordered(AT_ONCE);
    while let Some(mirrored) = mirroring.try_next().await? {
        done += mirrored;
        progress.count(done, total, "bytes");
    }
    drop(mirroring);
    progress.finish();
    // Last, so that a directory with a manifest is whole.
    small_objects(&source, dir, &opened).await?;
    let text = format!(
        "{} is mirrored in {}: {} objects, {} fetched\nrestore it with: snapshots restore --from {}{}",
        manifest.path(),
        dir.display(),
        wanted.len(),
        bytes(source.fetched_bytes()),
        dir.display(),
        if manifest.profile.is_public() { "" } else { " --profile full --identity FILE" }
    );
    let value = json!({ "path": dir, "snapshot": manifest.path().to_string(), "blockHeight": manifest.block_height,
        "objects": wanted.len(), "bytes": total, "fetchedBytes": source.fetched_bytes() });
    output.result(&text, &value);
    Ok(())
}

/// `latest` of a directory names one snapshot, so a directory mirrors one profile.
async fn refuse_other_profile(dir: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let latest = dir.join(Key::Latest(manifest.network.clone()).to_string());
    let there = tokio::fs::read(&latest).await.ok().and_then(|bytes| serde_json::from_slice::<Pointer>(&bytes).ok());
    let Some(other) = there.filter(|pointer| pointer.profile != manifest.profile) else { return Ok(()) };
    let failure = Failure::new(Exit::Refused, format!("{} mirrors the {} profile", dir.display(), other.profile));
    Err(failure.hint(format!("give the {} profile another --output-dir", manifest.profile)).into())
}

/// Makes sure that one object is there, and returns its size.
async fn mirror(source: &Source, dir: &Path, object: &Wanted) -> anyhow::Result<u64> {
    let path = dir.join(object.key.to_string());
    if let Ok(there) = tokio::fs::read(&path).await {
        let (sha256, size) = (object.sha256.clone(), there.len() as u64);
        if tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&there)) == sha256).await? {
            return Ok(size);
        }
    }
    let body = source.stored(&object.key, object.bytes).await.map_err(|error| not_loaded(error.into()))?;
    write(&path, &body).await?;
    Ok(body.len() as u64)
}

/// Manifest, checksum and pointer with their signatures, and a `latest` that points at this snapshot.
async fn small_objects(source: &Source, dir: &Path, opened: &Opened) -> anyhow::Result<()> {
    let path = opened.manifest.path();
    let mut pointer = None;
    let manifest = Manifest::key(opened.manifest.profile, path.clone());
    for key in [Key::Checksum(path.clone()), Key::Pointer(path.clone()), manifest] {
        for key in [key.signature(), key.clone()] {
            let body = source.small(&key).await.map_err(|error: FetchError| not_loaded(error.into()))?;
            // A snapshot that `latest` never pointed at has no pointer.
            let Some(body) = body else { continue };
            write(&dir.join(key.to_string()), &body).await?;
            if key == Key::Pointer(path.clone()) {
                pointer = Some(body);
            }
        }
    }
    let Some(body) = pointer else { return Ok(()) };
    let parsed: Pointer = serde_json::from_slice(&body).context("the pointer of the snapshot cannot be read")?;
    write(&dir.join(Key::Latest(path.network.clone()).to_string()), &body).await?;
    let all = dir.join(Key::LatestOfAll.to_string());
    let mut pointers: Pointers =
        tokio::fs::read(&all).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    pointers.networks.insert(path.network, parsed);
    write(&all, &serde_json::to_vec_pretty(&pointers)?).await
}

/// Written beside and renamed: a file that has its name is whole.
async fn write(path: &Path, body: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await.with_context(cannot)?;
    }
    let draft = PathBuf::from(format!("{}.part", path.display()));
    tokio::fs::write(&draft, body).await.with_context(cannot)?;
    tokio::fs::rename(&draft, path).await.with_context(cannot)
}
