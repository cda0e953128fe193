//! One chunk into its table: decode on a blocking thread, a short queue, COPY. Nothing touches a disk of ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

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
    room: OwnedSemaphorePermit,
}

/// Memory for the objects that all connections of a load hold at once, fetched ahead or being decoded.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    /// More does not make a load faster; what decoding and sockets take comes on top, some 15 MB for each connection.
    const BYTES: u64 = 64 << 20;
    /// Semaphores count to 2^32 only.
    const UNIT: u64 = 1 << 10;

    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(Self::BYTES / Self::UNIT).unwrap_or(usize::MAX))))
    }

    /// Waits, in turn, until there is room. What is larger than all of it goes alone. Nobody waits for ever: who asked first within a
    /// connection is loaded first there, and gives its room back.
    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, LoadError> {
        let units = bytes.clamp(1, Self::BYTES).div_ceil(Self::UNIT);
        let permit = Arc::clone(&self.0).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await;
        permit.map_err(|_| LoadError::Panicked)
    }
}

impl Job<'_> {
    pub(super) async fn fetch(&self, part: Part) -> Result<Fetched, LoadError> {
        let room = self.room.take(part.chunk.bytes).await?;
        let body = self.source.chunk(&self.opened.manifest.object(&part.chunk.sha256), part.chunk.bytes).await?;
        Ok(Fetched { part, body, room })
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
    let Fetched { part, body, room } = fetched;
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
    drop(room);
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_is_held_at_once_is_bounded_and_one_that_is_larger_goes_alone() {
        let room = Room::new();
        let take = |bytes| room.take(bytes).now_or_never();
        let [first, second] = [40 << 20, 24 << 20].map(|bytes| take(bytes).unwrap().unwrap());
        assert!(take(1).is_none(), "there is no room left");
        drop(first);
        assert!(take(Room::BYTES * 2).is_none(), "the second is still there");
        drop(second);
        assert!(take(Room::BYTES * 2).is_some());
    }
}
