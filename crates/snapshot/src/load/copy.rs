//! One chunk into its table: decode on a blocking thread, a short queue, COPY. Nothing touches a disk of ours.

use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::{Job, LoadError, Part};
use crate::chunk::Heights;
use crate::columns::{TableShape, quote};
use crate::cut::field;

/// Decoded text is handed on in pieces of this size: several writes to a socket, few hand-overs.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces decoded ahead.
const AHEAD: usize = 3;
/// Frames of a chunk never need a larger window (2^27 is what stock `zstd -d` takes without a flag).
const WINDOW_LOG_MAX: u32 = 27;

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
        let body = self.source.chunk(&part.chunk.sha256, part.chunk.bytes).await?;
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
    let decoder = Decoder::new(body, part.chunk.raw_bytes, filter);
    let (full, mut pieces) = mpsc::channel(AHEAD);
    let (empty, spare) = mpsc::channel(AHEAD + 1);
    let worker = tokio::task::spawn_blocking(move || decoder.run(&full, spare));
    let options = if freeze == Freeze::Yes { " with (freeze)" } else { "" };
    let sql = format!("copy public.{} ({}) from stdin{options}", quote(&shape.name), shape.column_list());
    let mut target = conn.copy_in_raw(&sql).await.map_err(at())?;
    while let Some(piece) = pieces.recv().await {
        target.send(&piece[..]).await.map_err(at())?;
        done.fetch_add(piece.len() as u64, Ordering::Relaxed);
        // A full channel has enough of them.
        let _ = empty.try_send(piece);
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

/// Turns a chunk into pieces of text.
struct Decoder {
    body: Bytes,
    raw_bytes: u64,
    /// Rows outside of these heights, in the field at this position, are dropped.
    filter: Option<(Heights, usize)>,
}

impl Decoder {
    fn new(body: Bytes, raw_bytes: u64, filter: Option<(Heights, usize)>) -> Self {
        Self { body, raw_bytes, filter }
    }

    /// Decodes until the end, or until nobody listens any more. Never hands on more than the manifest allows.
    fn run(self, full: &mpsc::Sender<Vec<u8>>, mut spare: mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
        let mut decoder = zstd::stream::read::Decoder::new(Cursor::new(self.body))?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut total = 0;
        let mut rest = Vec::new();
        loop {
            let mut piece = spare.try_recv().unwrap_or_default();
            piece.clear();
            piece.append(&mut rest);
            let before = piece.len();
            (&mut decoder).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            let read = piece.len() - before;
            total += read as u64;
            if total > self.raw_bytes || (read == 0 && total != self.raw_bytes) {
                return Err(std::io::Error::other(format!("more or less than {} bytes of text", self.raw_bytes)));
            }
            if let Some(filter) = &self.filter {
                rest = keep(&mut piece, *filter, read == 0);
            }
            if !piece.is_empty() && full.blocking_send(piece).is_err() {
                return Ok(());
            }
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// Leaves only whole rows with a height in the range; what is behind the last row's end is returned, to be put before the next piece.
fn keep(piece: &mut Vec<u8>, (heights, position): (Heights, usize), last: bool) -> Vec<u8> {
    let end = if last { piece.len() } else { memchr::memrchr(b'\n', piece).map_or(0, |at| at + 1) };
    let rest = piece.split_off(end);
    let mut kept = Vec::with_capacity(piece.len());
    for row in piece.split_inclusive(|byte| *byte == b'\n') {
        let height = std::str::from_utf8(&row[field(row, position)]).ok().and_then(|text| text.parse::<u64>().ok());
        if height.is_some_and(|height| heights.from <= height && height <= heights.to) {
            kept.extend_from_slice(row);
        }
    }
    *piece = kept;
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8], raw_bytes: u64, filter: Option<(Heights, usize)>) -> std::io::Result<Vec<u8>> {
        let body = Bytes::from(zstd::encode_all(text, 3).unwrap());
        let (full, mut pieces) = mpsc::channel(1_000);
        let (_empty, spare) = mpsc::channel(1);
        Decoder::new(body, raw_bytes, filter).run(&full, spare)?;
        drop(full);
        let mut all = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            all.extend(piece);
        }
        Ok(all)
    }

    #[test]
    fn a_chunk_of_another_length_than_noted_is_damaged() {
        let text = b"1\ta\n".repeat(100_000);
        assert!(decoded(&text, text.len() as u64, None).unwrap() == text);
        assert!(decoded(&text, text.len() as u64 - 1, None).is_err());
        assert!(decoded(&text, text.len() as u64 + 1, None).is_err());
        assert!(decoded(b"", 0, None).unwrap().is_empty());
    }

    #[test]
    fn only_rows_within_the_heights_are_kept_wherever_pieces_end() {
        let text: String = (0..90_000).map(|height| format!("x{height}\t{height}\tsome more text\n")).collect();
        let kept = decoded(text.as_bytes(), text.len() as u64, Some((Heights { from: 70, to: 80_000 }, 1))).unwrap();
        let kept = String::from_utf8(kept).unwrap();
        assert_eq!(kept.lines().count(), 80_000 - 70 + 1);
        assert!(kept.starts_with("x70\t70\t") && kept.ends_with("x80000\t80000\tsome more text\n"));
    }
}
