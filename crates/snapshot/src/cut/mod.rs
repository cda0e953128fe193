//! Cuts chunks: COPY text by height → order within each height → sha256 → zstd → sha256 → one conditional PUT under the digest. No scratch disk.
//!
//! Compression and hashing run on a blocking thread that is fed by a short queue, so that neither the database nor the
//! async threads wait for the other; rows are read on a thread of its own ([`ReadThread`]). Memory is bounded by the queue and the compressed size of one chunk.
//! Invariant: the bytes of a chunk depend on its rows and the compression parameters alone.

mod frame;
mod inspect;
mod order;
mod rows;
mod thread;
mod whole;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

pub use frame::LEVEL;
pub use inspect::{ChainLink, Inspection};
pub(crate) use order::field;
pub use rows::{RangeDigest, begin_export, digest_rows, select_all};
pub use thread::ReadThread;
pub use whole::{Vault, cut_whole};

use crate::buffer::Buffer;
use crate::chunk::{Chunk, Heights};
use crate::columns::TableShape;
use crate::key::Key;
use crate::store::{Store, StoreError};
use inspect::Inspector;
use order::RowOrder;
use rows::BlockReceiver;

/// COPY text above this is halved by height.
const MAX_RAW_BYTES: u64 = 128 << 20;
/// So are compressed chunks above this, since each is held in memory until it is stored.
const MAX_BYTES: u64 = 64 << 20;

/// A chunk that could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Reading rows failed.
    #[error("cannot read rows of public.{table}")]
    Read {
        /// The table.
        table: String,
        /// Cause.
        #[source]
        source: sqlx::Error,
    },
    /// The bucket did not take it.
    #[error("cannot store a chunk of {table}")]
    Store {
        /// The table.
        table: String,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// age failed.
    #[error("cannot encrypt a chunk of {table}")]
    Encrypt {
        /// The table.
        table: String,
        /// Cause.
        #[source]
        source: crate::encrypt::EncryptionError,
    },
    /// zstd failed.
    #[error("cannot compress a chunk of {table}")]
    Compress {
        /// The table.
        table: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The compressing thread panicked.
    #[error("the compressing thread of {table} panicked")]
    Panicked {
        /// The table.
        table: String,
    },
}

/// What to cut and where to put it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The bucket.
    pub store: &'a Store,
    /// The table.
    pub shape: &'a TableShape,
    /// Marks the chunks as final.
    pub sealed: bool,
    /// Whether most of the chunks are likely to be stored: each is looked for before its body is sent.
    pub likely_stored: bool,
}

/// Cuts the rows of one table in each of `parts`, lowest first, into one chunk, or more where one would be too large, and stores
/// them. A range that was split in an earlier snapshot is given in the parts it had then, since splits never move.
/// `inspection` sees each row once. Runs inside the caller's transaction (see [`begin_export`]).
///
/// # Errors
/// [`CutError`]; chunks stored before it stay, as unreferenced objects.
pub async fn cut_table(
    conn: &mut PgConnection,
    target: Target<'_>,
    parts: &[Heights],
    inspection: &mut Inspection,
) -> Result<Vec<Chunk>, CutError> {
    let mut chunks = Vec::new();
    let mut waiting: Vec<Heights> = parts.iter().rev().copied().collect();
    while let Some(heights) = waiting.pop() {
        let sql = rows::copy_range(target.shape, heights);
        // A half that turns out too large is read again, and its rows must not be counted twice.
        let inspector = inspection.start(target.shape);
        let limit = heights.halves().map(|_| MAX_RAW_BYTES);
        let work = Work { inspector, limit, order: RowOrder::of(target.shape) };
        match compress(conn, target.shape, &sql, work).await? {
            Some(cut) => {
                inspection.finish(cut.inspector);
                chunks.push(store_chunk(target, Some(heights), cut.body).await?);
            }
            None => {
                let (left, right) = heights.halves().unwrap_or((heights, heights));
                waiting.extend([right, left]);
            }
        }
    }
    Ok(chunks)
}

/// Cuts a small table, or any query of its columns, into one chunk and stores it.
///
/// # Errors
/// [`CutError`].
pub async fn cut_query(conn: &mut PgConnection, target: Target<'_>, query: &str) -> Result<Chunk, CutError> {
    let sql = format!("copy ({query}) to stdout");
    let work = Work { inspector: Inspector::None, limit: None, order: RowOrder::none() };
    let cut = compress(conn, target.shape, &sql, work).await?;
    let Some(cut) = cut else { return Err(CutError::Panicked { table: target.shape.name.clone() }) };
    store_chunk(target, None, cut.body).await
}

async fn store_chunk(target: Target<'_>, heights: Option<Heights>, body: Body) -> Result<Chunk, CutError> {
    let table = target.shape.name.clone();
    let key = Key::Chunk(body.sha256.clone());
    let bytes = body.compressed.len() as u64;
    let failed = |source| CutError::Store { table: table.clone(), source };
    // Of another size it is damaged, and the answer to the condition says no more than that it is there.
    let there = target.likely_stored && target.store.head(&key).await.map_err(failed)?.is_some_and(|meta| meta.bytes == bytes);
    if !there {
        target.store.put_new(&key, body.compressed).await.map_err(failed)?;
    }
    Ok(Chunk {
        table,
        heights,
        part: 0,
        rows: body.rows,
        raw_bytes: body.raw_bytes,
        bytes,
        sha256: body.sha256,
        content_sha256: body.content_sha256,
        sealed: target.sealed,
    })
}

/// A compressed chunk in memory.
struct Body {
    compressed: Bytes,
    sha256: String,
    content_sha256: String,
    rows: u64,
    raw_bytes: u64,
}

struct Cut {
    body: Body,
    inspector: Inspector,
}

/// What the compressing thread does with rows besides compressing them.
struct Work {
    inspector: Inspector,
    order: RowOrder,
    /// Bytes of COPY text above which it gives up.
    limit: Option<u64>,
}

/// Runs a COPY through the compressing thread. `None`: larger than the limits, and the work allows to say so.
async fn compress(conn: &mut PgConnection, shape: &TableShape, sql: &str, work: Work) -> Result<Option<Cut>, CutError> {
    let (sender, receiver) = rows::blocks();
    let order = work.order.clone();
    let worker = tokio::task::spawn_blocking(move || compress_blocks(receiver, work));
    let read = rows::forward(conn, sql, &order, sender).await;
    let cut = worker.await.map_err(|_| CutError::Panicked { table: shape.name.clone() })?;
    read.map_err(|source| CutError::Read { table: shape.name.clone(), source })?;
    cut.map_err(|source| CutError::Compress { table: shape.name.clone(), source })
}

/// One frame a block: zstd compresses a whole buffer much faster than a stream, whose window it must keep copying.
fn compress_blocks(mut blocks: BlockReceiver, mut work: Work) -> std::io::Result<Option<Cut>> {
    let mut compressor = frame::compressor()?;
    let (mut compressed, mut frame) = (Buffer::new(), Buffer::new());
    let mut content = Sha256::new();
    let (mut rows, mut raw_bytes) = (0, 0);
    while let Some(mut block) = blocks.next() {
        raw_bytes += block.len() as u64;
        work.order.apply(&mut block);
        content.update(&block);
        frame.clear();
        frame.reserve(zstd::zstd_safe::compress_bound(block.len()));
        compressor.compress_to_buffer(&block, &mut *frame)?;
        compressed.extend_from_slice(&frame);
        if work.limit.is_some_and(|limit| raw_bytes > limit || compressed.len() as u64 > MAX_BYTES) {
            return Ok(None);
        }
        rows += work.inspector.see(&block);
    }
    if compressed.is_empty() {
        // No rows: still a frame, so that the object exists.
        compressed.extend_from_slice(&compressor.compress(&[])?);
    }
    drop(frame);
    let compressed = compressed.freeze();
    let sha256 = hex::encode(Sha256::digest(&compressed));
    let body = Body { compressed, sha256, content_sha256: hex::encode(content.finalize()), rows, raw_bytes };
    Ok(Some(Cut { body, inspector: work.inspector }))
}
