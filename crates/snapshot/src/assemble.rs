//! Reads an archive's bytes out of the bucket by its layout: from start to end, or any range of it.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;

use crate::archive::{Layout, Segment, Slice};
use crate::buffer::Buffer;
use crate::key::Key;
use crate::store::{Store, StoreError};

/// Objects fetched ahead of the one being consumed; bounds memory to this many chunks.
const AHEAD: usize = 2;

/// Bytes of a chunk handed on at once when an archive is streamed.
const STREAMED: usize = 256 << 10;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The bucket's answer.
    #[error("cannot read a chunk of the archive")]
    Store(#[from] StoreError),
    /// A chunk is gone.
    #[error("chunk {key} is not in the bucket")]
    Missing {
        /// Its key.
        key: String,
    },
    /// A chunk is not what its name says.
    #[error("chunk {key} is damaged in the bucket: {found}; delete this object and run again, so that it is cut anew")]
    Damaged {
        /// Its key.
        key: String,
        /// Its digest or size.
        found: String,
    },
}

/// All segments in order, each chunk checked against its name.
pub fn segments(store: &Store, layout: &Layout) -> impl Stream<Item = Result<Bytes, AssembleError>> + use<> {
    let store = store.clone();
    let segments: Vec<Segment> = layout.segments().to_vec();
    stream::iter(segments).map(move |segment| segment_bytes(store.clone(), segment)).buffered(AHEAD)
}

async fn segment_bytes(store: Store, segment: Segment) -> Result<Bytes, AssembleError> {
    let (sha256, bytes) = match segment {
        Segment::Glue(frame) => return Ok(frame),
        Segment::Chunk { sha256, bytes } => (hex::encode(sha256), bytes),
    };
    let key = Key::Chunk(sha256.clone());
    let Some((body, _)) = store.get(&key).await? else { return Err(AssembleError::Missing { key: key.to_string() }) };
    let damaged = |found: String| AssembleError::Damaged { key: key.to_string(), found };
    if body.len() as u64 != bytes {
        return Err(damaged(format!("{} bytes instead of {bytes}", body.len())));
    }
    let hashed = tokio::task::spawn_blocking(move || (hex::encode(Sha256::digest(&body)), body)).await;
    let (found, body) = hashed.map_err(|panic| damaged(panic.to_string()))?;
    if found != sha256 {
        return Err(damaged(format!("its sha256 is {found}")));
    }
    Ok(body)
}

/// The bytes `from..to` of the archive. Chunks were checked by [`segments`] before; a wrong length is noticed here.
///
/// # Errors
/// [`AssembleError`].
pub async fn range(store: &Store, layout: &Layout, from: u64, to: u64) -> Result<Bytes, AssembleError> {
    let mut bytes = Buffer::of(usize::try_from(to - from).unwrap_or_default());
    for slice in layout.read(from..to) {
        append(store, &slice, &mut bytes).await?;
    }
    Ok(bytes.freeze())
}

async fn append(store: &Store, slice: &Slice<'_>, bytes: &mut Vec<u8>) -> Result<(), AssembleError> {
    let sha256 = match slice.segment {
        Segment::Glue(frame) => {
            let range =
                usize::try_from(slice.range.start).unwrap_or(usize::MAX)..usize::try_from(slice.range.end).unwrap_or(usize::MAX);
            bytes.extend_from_slice(&frame[range]);
            return Ok(());
        }
        Segment::Chunk { sha256, .. } => hex::encode(sha256),
    };
    let key = Key::Chunk(sha256).to_string();
    let wanted = slice.range.end - slice.range.start;
    let object = store.open(&key, Some(&format!("bytes={}-{}", slice.range.start, slice.range.end - 1))).await?;
    let before = bytes.len();
    object.append_to(&key, bytes).await?;
    let found = (bytes.len() - before) as u64;
    if found != wanted {
        return Err(AssembleError::Damaged { key, found: format!("{found} bytes instead of {wanted}") });
    }
    Ok(())
}

/// The bytes `range` of the archive as they come. Nothing is held but what is under way; a chunk that ends early is an error.
pub fn stream(store: &Store, layout: &Layout, range: Range<u64>) -> impl Stream<Item = Result<Bytes, AssembleError>> + use<> {
    let store = store.clone();
    let slices: Vec<(Segment, Range<u64>)> =
        layout.read(range).into_iter().map(|slice| (slice.segment.clone(), slice.range)).collect();
    stream::iter(slices).then(move |(segment, range)| piece(store.clone(), segment, range)).try_flatten()
}

type Piece = Pin<Box<dyn Stream<Item = Result<Bytes, AssembleError>> + Send>>;

async fn piece(store: Store, segment: Segment, range: Range<u64>) -> Result<Piece, AssembleError> {
    let sha256 = match segment {
        Segment::Glue(frame) => {
            let inside = |at| usize::try_from(at).unwrap_or(usize::MAX);
            let part = frame.slice(inside(range.start)..inside(range.end));
            return Ok(stream::once(std::future::ready(Ok(part))).boxed());
        }
        Segment::Chunk { sha256, .. } => hex::encode(sha256),
    };
    let key = Key::Chunk(sha256).to_string();
    let wanted = range.end - range.start;
    let object = store.open(&key, Some(&format!("bytes={}-{}", range.start, range.end - 1))).await?;
    if object.bytes != wanted {
        return Err(AssembleError::Damaged { key, found: format!("{} bytes instead of {wanted}", object.bytes) });
    }
    let body = ReaderStream::with_capacity(object.body.into_async_read(), STREAMED);
    let lost = move |error: std::io::Error| StoreError::Unreachable { doing: format!("get `{key}`"), cause: error.to_string() };
    Ok(body.map_err(move |error| AssembleError::Store(lost(error))).boxed())
}

impl AssembleError {
    /// True where trying again can help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}
