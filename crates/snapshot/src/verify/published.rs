//! Proves that what a manifest names is published: every object there in its length, and with `deep` every byte of it.

use std::io::Read;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::Report;
use crate::chunk::Chunk;
use crate::fetch::{FetchError, Opened, Size, Source};
use crate::key::Key;
use crate::load::Watch;
use crate::manifest::{Archive, Profile};

/// What was found about one chunk: nothing wrong, or what.
type Found = Result<(), String>;

/// Checks the published objects of a snapshot whose manifest was believed, with `jobs` requests at once.
///
/// # Errors
/// Only where the place cannot be read; what is missing or damaged is in the report.
pub async fn published(
    source: &Source,
    opened: &Opened,
    deep: bool,
    (jobs, watch): (usize, &dyn Watch),
) -> Result<Report, FetchError> {
    let manifest = &opened.manifest;
    let mut report = Report::default();
    watch.step(1, 1, if deep { "chunks, every byte" } else { "chunks" });
    let total = manifest.chunks.len() as u64;
    let mut looking = stream::iter(&manifest.chunks)
        .map(|chunk| look(source, manifest.object(&chunk.sha256), chunk, deep))
        .buffered(jobs.max(1));
    let (mut bad, mut done) = (Vec::new(), 0);
    while let Some((chunk, found)) = looking.try_next().await? {
        done += 1;
        watch.progress(done, total, "chunks");
        match found {
            Ok(()) if deep => {
                report.rows += chunk.rows;
                report.raw_bytes += chunk.raw_bytes;
            }
            Ok(()) => {}
            Err(what) => bad.push(format!("{}: {what}", chunk.file_name())),
        }
    }
    drop(looking);
    let found = if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) };
    let how = if deep { "byte for byte" } else { "in full length" };
    report.expect(format!("{total} chunks are there {how}"), found);
    let schema = schema(source, opened).await?;
    report.expect("the schema is there byte for byte".into(), schema);
    if manifest.profile == Profile::Full {
        return Ok(report);
    }
    let archive = Key::Archive(manifest.path());
    let found = match source.size(&archive).await? {
        Size::Bytes(bytes) if bytes == manifest.size_bytes => Ok(()),
        Size::Bytes(bytes) => Err(format!("{bytes} bytes")),
        Size::Unknown => {
            report.expect("the archive is there (the server does not say how long it is)".into(), Ok(()));
            return Ok(report);
        }
        // Its parts were looked at above; the service makes it of them, and a mirror has no need of it.
        Size::Missing if manifest.archive == Archive::OnRequest || source.is_mirror() => return Ok(report),
        Size::Missing => Err("missing".into()),
    };
    report.expect(format!("the archive has {} bytes", manifest.size_bytes), found);
    Ok(report)
}

async fn schema(source: &Source, opened: &Opened) -> Result<Found, FetchError> {
    match source.small_chunk(&opened.manifest.object(&opened.manifest.schema.sha256)).await {
        Ok(_) => Ok(Ok(())),
        Err(error) if error.is_damage() => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

async fn look<'a>(source: &Source, key: Key, chunk: &'a Chunk, deep: bool) -> Result<(&'a Chunk, Found), FetchError> {
    if !deep {
        match source.size(&key).await? {
            Size::Bytes(bytes) if bytes == chunk.bytes => return Ok((chunk, Ok(()))),
            Size::Bytes(bytes) => return Ok((chunk, Err(format!("{bytes} bytes instead of {}", chunk.bytes)))),
            Size::Missing => return Ok((chunk, Err("missing".into()))),
            // Then it has to be read.
            Size::Unknown => {}
        }
    }
    let body = match source.chunk(&key, chunk.bytes).await {
        Ok(body) => body,
        Err(error) if error.is_damage() => return Ok((chunk, Err(error.to_string()))),
        Err(error) => return Err(error),
    };
    let expected = chunk.clone();
    let read = tokio::task::spawn_blocking(move || content(&body, &expected)).await;
    Ok((chunk, read.unwrap_or_else(|panic| Err(panic.to_string()))))
}

/// The text of a chunk is as long as noted, has that digest and that many rows.
fn content(body: &Bytes, chunk: &Chunk) -> Found {
    let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(|error| error.to_string())?;
    let (mut digest, mut rows, mut length) = (Sha256::new(), 0, 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = decoder.read(&mut piece).map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        length += read as u64;
        if length > chunk.raw_bytes {
            return Err(format!("more than {} bytes of text", chunk.raw_bytes));
        }
        digest.update(&piece[..read]);
        rows += memchr::memchr_iter(b'\n', &piece[..read]).count() as u64;
    }
    let found = hex::encode(digest.finalize());
    if (found.as_str(), rows, length) == (chunk.content_sha256.as_str(), chunk.rows, chunk.raw_bytes) {
        return Ok(());
    }
    Err(format!("{rows} rows in {length} bytes with digest {found}"))
}
