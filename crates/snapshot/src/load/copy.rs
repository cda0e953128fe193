//! One chunk into its table: decode on a blocking thread, a short queue, COPY. Nothing touches a disk of ours.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::binary::Encoder;
use super::decode::{Decoder, Rows};
use super::{Job, LoadError, Part};
use crate::columns::TableShape;

/// Pieces decoded ahead; each connection holds two more.
const AHEAD: usize = 1;
/// Rows are sent in messages of this size: the server takes each whole into memory.
const MESSAGE_BYTES: usize = 64 << 10;

/// Whether rows are written as frozen, which takes a table that was truncated in the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freeze {
    Yes,
    No,
}

/// A chunk whose digest was right.
pub(super) struct Fetched {
    pub(super) part: Part,
    body: Bytes,
}

impl Job<'_> {
    pub(super) async fn fetch(&self, part: Part) -> Result<Fetched, LoadError> {
        let body = self.source.chunk(&self.opened.manifest.object(&part.chunk.sha256), part.chunk.bytes).await?;
        Ok(Fetched { part, body })
    }
}

/// Copies the wanted rows of a chunk into its table, inside the caller's transaction, and returns how many. `done` grows by bytes of text.
pub(super) async fn copy(
    conn: &mut PgConnection,
    shape: &TableShape,
    fetched: Fetched,
    freeze: Freeze,
    done: &AtomicU64,
) -> Result<u64, LoadError> {
    let Fetched { part, body } = fetched;
    let chunk = part.chunk.file_name();
    let at = || LoadError::at(format!("copy {chunk}"));
    let filter = part.within.zip(shape.height.as_deref().and_then(|column| shape.position(column)));
    let encoder = Encoder::of(conn, shape).await.map_err(at())?;
    let options = match (freeze, encoder.is_some()) {
        (Freeze::No, false) => "",
        (Freeze::No, true) => " with (format binary)",
        (Freeze::Yes, false) => " with (freeze)",
        (Freeze::Yes, true) => " with (freeze, format binary)",
    };
    let decoder = Decoder::new(body, part.chunk.raw_bytes, Rows::new(filter, encoder));
    let (full, mut pieces) = mpsc::channel(AHEAD);
    let (empty, spare) = mpsc::channel(AHEAD + 2);
    let worker = tokio::task::spawn_blocking(move || decoder.run(&full, spare));
    let sql = format!("copy {} ({}) from stdin{options}", shape.qualified(), shape.column_list());
    let mut target = conn.copy_in_raw(&sql).await.map_err(at())?;
    while let Some(piece) = pieces.recv().await {
        for message in piece.bytes.chunks(MESSAGE_BYTES) {
            target.send(message).await.map_err(at())?;
        }
        done.fetch_add(piece.text_bytes, Ordering::Relaxed);
        // A full channel has enough of them.
        let _ = empty.try_send(piece.bytes);
    }
    let decoded = worker.await.map_err(|_| LoadError::Panicked)?;
    if let Err(error) = decoded {
        let found = error.to_string();
        // The server's answer to giving up is an error too; what matters is why.
        let _ = target.abort("the chunk is damaged").await;
        return Err(LoadError::Chunk { chunk, found });
    }
    let rows = target.finish().await.map_err(at())?;
    if part.within.is_none() && rows != part.chunk.rows {
        return Err(LoadError::Chunk { chunk, found: format!("{rows} rows instead of {}", part.chunk.rows) });
    }
    Ok(rows)
}
