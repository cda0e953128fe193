//! One chunk into its table: decode on a blocking thread, a short queue, COPY. Nothing touches a disk of ours.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::{Job, LoadError, Part};
use crate::chunk::Heights;
use crate::columns::TableShape;
use crate::cut::field;

/// Frames up to this size are decoded at once, which spares a copy; ours are 4 MiB.
const FRAME_BYTES: u64 = 8 << 20;
/// Longer ones are decoded in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces decoded ahead; each connection holds two more.
const AHEAD: usize = 1;
/// Text is sent in messages of this size: the server takes each whole into memory.
const MESSAGE_BYTES: usize = 64 << 10;
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
    let decoder = Decoder::new(body, part.chunk.raw_bytes, filter);
    let (full, mut pieces) = mpsc::channel(AHEAD);
    let (empty, spare) = mpsc::channel(AHEAD + 2);
    let worker = tokio::task::spawn_blocking(move || decoder.run(&full, spare));
    let options = if freeze == Freeze::Yes { " with (freeze)" } else { "" };
    let sql = format!("copy {} ({}) from stdin{options}", shape.qualified(), shape.column_list());
    let mut target = conn.copy_in_raw(&sql).await.map_err(at())?;
    while let Some(piece) = pieces.recv().await {
        for message in piece.chunks(MESSAGE_BYTES) {
            target.send(message).await.map_err(at())?;
            done.fetch_add(message.len() as u64, Ordering::Relaxed);
        }
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

/// Where decoded text goes, and how much there may be of it.
struct Sink<'a> {
    full: &'a mpsc::Sender<Vec<u8>>,
    spare: mpsc::Receiver<Vec<u8>>,
    left_bytes: u64,
    filter: Option<(Heights, usize)>,
    /// The beginning of a row whose end is in the next piece.
    carried: Vec<u8>,
}

impl Decoder {
    fn new(body: Bytes, raw_bytes: u64, filter: Option<(Heights, usize)>) -> Self {
        Self { body, raw_bytes, filter }
    }

    /// Decodes until the end, or until nobody listens any more. Never hands on more than the manifest allows.
    fn run(self, full: &mpsc::Sender<Vec<u8>>, spare: mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
        let mut sink = Sink { full, spare, left_bytes: self.raw_bytes, filter: self.filter, carried: Vec::new() };
        let mut whole = zstd::bulk::Decompressor::new()?;
        let mut rest = &self.body[..];
        while !rest.is_empty() {
            let damaged = |code| std::io::Error::other(format!("not a zstd frame: {}", zstd::zstd_safe::get_error_name(code)));
            let size = zstd::zstd_safe::find_frame_compressed_size(rest).map_err(damaged)?;
            let (frame, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            let listening = match zstd::zstd_safe::get_frame_content_size(frame) {
                Ok(Some(bytes)) if bytes <= FRAME_BYTES => {
                    let mut piece = sink.empty();
                    piece.reserve_exact(usize::try_from(bytes).unwrap_or_default());
                    whole.decompress_to_buffer(frame, &mut piece)?;
                    sink.take(piece)?
                }
                _ => stream(frame, &mut sink)?,
            };
            if !listening {
                return Ok(());
            }
        }
        sink.end()
    }
}

/// A frame that is too long to be decoded at once, such as the single one of resealed history.
fn stream(frame: &[u8], sink: &mut Sink<'_>) -> std::io::Result<bool> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    loop {
        let mut piece = sink.empty();
        if (&mut decoder).take(PIECE_BYTES).read_to_end(&mut piece)? == 0 {
            return Ok(true);
        }
        if !sink.take(piece)? {
            return Ok(false);
        }
    }
}

impl Sink<'_> {
    /// A buffer to fill, used before if there is one.
    fn empty(&mut self) -> Vec<u8> {
        let mut piece = self.spare.try_recv().unwrap_or_default();
        piece.clear();
        piece
    }

    /// Hands text on; `false` if nobody listens any more.
    fn take(&mut self, mut piece: Vec<u8>) -> std::io::Result<bool> {
        let too_long = || std::io::Error::other("its text is longer than the manifest says");
        self.left_bytes = self.left_bytes.checked_sub(piece.len() as u64).ok_or_else(too_long)?;
        if let Some(filter) = self.filter {
            let mut text = std::mem::take(&mut self.carried);
            text.append(&mut piece);
            self.carried = keep(&mut text, filter);
            piece = text;
        }
        Ok(piece.is_empty() || self.full.blocking_send(piece).is_ok())
    }

    fn end(self) -> std::io::Result<()> {
        match self.left_bytes {
            0 => Ok(()),
            left => Err(std::io::Error::other(format!("its text is {left} bytes shorter than the manifest says"))),
        }
    }
}

/// Leaves only whole rows with a height in the range; what is behind the last row's end is returned, to be put before the next piece.
/// Every row of COPY text ends with a line feed.
fn keep(piece: &mut Vec<u8>, (heights, position): (Heights, usize)) -> Vec<u8> {
    let end = memchr::memrchr(b'\n', piece).map_or(0, |at| at + 1);
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

    /// Once as one long frame without a noted length, once as frames that are decoded at once.
    fn decoded(text: &[u8], raw_bytes: u64, filter: Option<(Heights, usize)>) -> std::io::Result<Vec<u8>> {
        let frames: Vec<u8> = text.chunks(100_000).flat_map(|piece| zstd::bulk::compress(piece, 3).unwrap()).collect();
        let one = run(zstd::encode_all(text, 3).unwrap(), raw_bytes, filter)?;
        assert!(run(frames, raw_bytes, filter)? == one);
        Ok(one)
    }

    fn run(object: Vec<u8>, raw_bytes: u64, filter: Option<(Heights, usize)>) -> std::io::Result<Vec<u8>> {
        let body = Bytes::from(object);
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
        assert!(run(b"no frame".to_vec(), 8, None).is_err());
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
