//! A chunk, piece by piece: zstd frames to text, and text to the rows that COPY is given.

use std::io::Read;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::binary::{Encoder, HEADER, TRAILER};
use crate::chunk::Heights;
use crate::cut::field;

/// Frames up to this size are decoded at once, which spares a copy; ours are 4 MiB.
const FRAME_BYTES: u64 = 8 << 20;
/// Longer ones are decoded in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;
/// Rows are made from so much text at a time, so that what is sent ahead stays small.
const SLICE_BYTES: usize = 512 << 10;
/// Frames of a chunk never need a larger window (2^27 is what stock `zstd -d` takes without a flag).
const WINDOW_LOG_MAX: u32 = 27;

/// Something for COPY.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Length of the text that it was made from.
    pub(super) text_bytes: u64,
}

/// Turns a chunk into pieces.
pub(super) struct Decoder {
    body: Bytes,
    raw_bytes: u64,
    rows: Option<Rows>,
}

/// Where pieces go, and how much text there may be.
struct Sink<'a> {
    full: &'a mpsc::Sender<Piece>,
    spare: mpsc::Receiver<Vec<u8>>,
    left_bytes: u64,
    rows: Option<Rows>,
    /// Text that rows were made from; the next frame's takes its place.
    read: Vec<u8>,
}

impl Decoder {
    /// Of a chunk with so much text, whose rows are handed on as they are or as `rows` makes them.
    pub(super) fn new(body: Bytes, raw_bytes: u64, rows: Option<Rows>) -> Self {
        Self { body, raw_bytes, rows }
    }

    /// Decodes until the end, or until nobody listens any more. Never hands on more than the manifest allows.
    pub(super) fn run(self, full: &mpsc::Sender<Piece>, spare: mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
        let mut sink = Sink { full, spare, left_bytes: self.raw_bytes, rows: self.rows, read: Vec::new() };
        let mut whole = zstd::bulk::Decompressor::new()?;
        let mut rest = &self.body[..];
        let mut listening = sink.begin();
        while listening && !rest.is_empty() {
            let damaged = |code| std::io::Error::other(format!("not a zstd frame: {}", zstd::zstd_safe::get_error_name(code)));
            let size = zstd::zstd_safe::find_frame_compressed_size(rest).map_err(damaged)?;
            let (frame, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            listening = match zstd::zstd_safe::get_frame_content_size(frame) {
                Ok(Some(bytes)) if bytes <= FRAME_BYTES => {
                    let mut text = sink.empty_text();
                    text.reserve_exact(usize::try_from(bytes).unwrap_or_default());
                    whole.decompress_to_buffer(frame, &mut text)?;
                    sink.take(text)?
                }
                _ => stream(frame, &mut sink)?,
            };
        }
        if listening { sink.end() } else { Ok(()) }
    }
}

/// A frame that is too long to be decoded at once, such as the single one of resealed history.
fn stream(frame: &[u8], sink: &mut Sink<'_>) -> std::io::Result<bool> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    loop {
        let mut text = sink.empty_text();
        if (&mut decoder).take(PIECE_BYTES).read_to_end(&mut text)? == 0 {
            return Ok(true);
        }
        if !sink.take(text)? {
            return Ok(false);
        }
    }
}

impl Sink<'_> {
    fn begin(&mut self) -> bool {
        self.rows.as_ref().is_none_or(|rows| self.send(rows.header().to_vec(), 0))
    }

    /// A buffer for text. What is handed on as it is leaves with its buffer.
    fn empty_text(&mut self) -> Vec<u8> {
        let mut text = if self.rows.is_some() { std::mem::take(&mut self.read) } else { self.empty_piece() };
        text.clear();
        text
    }

    /// A buffer that was sent before, if there is one.
    fn empty_piece(&mut self) -> Vec<u8> {
        let mut piece = self.spare.try_recv().unwrap_or_default();
        piece.clear();
        piece
    }

    /// Hands text on; `false` if nobody listens any more.
    fn take(&mut self, text: Vec<u8>) -> std::io::Result<bool> {
        let too_long = || std::io::Error::other("its text is longer than the manifest says");
        let text_bytes = text.len() as u64;
        self.left_bytes = self.left_bytes.checked_sub(text_bytes).ok_or_else(too_long)?;
        let Some(mut rows) = self.rows.take() else { return Ok(self.send(text, text_bytes)) };
        let mut listening = true;
        for slice in text.chunks(SLICE_BYTES) {
            let mut piece = self.empty_piece();
            rows.take(slice, &mut piece)?;
            listening = listening && self.send(piece, slice.len() as u64);
        }
        (self.rows, self.read) = (Some(rows), text);
        Ok(listening)
    }

    fn send(&self, bytes: Vec<u8>, text_bytes: u64) -> bool {
        self.full.blocking_send(Piece { bytes, text_bytes }).is_ok()
    }

    fn end(self) -> std::io::Result<()> {
        if self.left_bytes > 0 {
            return Err(std::io::Error::other(format!("its text is {} bytes shorter than the manifest says", self.left_bytes)));
        }
        if let Some(rows) = &self.rows {
            rows.end()?;
            self.send(rows.trailer().to_vec(), 0);
        }
        Ok(())
    }
}

/// Chooses rows, or gives them another form, wherever pieces of text end.
pub(super) struct Rows {
    /// Only rows within these heights, which are in the field at this position.
    within: Option<(Heights, usize)>,
    encoder: Option<Encoder>,
    /// The beginning of a row whose end is in the next piece. Every row of COPY text ends with a line feed.
    carried: Vec<u8>,
}

impl Rows {
    /// `None` where rows stay as they are.
    pub(super) fn new(within: Option<(Heights, usize)>, encoder: Option<Encoder>) -> Option<Self> {
        (within.is_some() || encoder.is_some()).then(|| Self { within, encoder, carried: Vec::new() })
    }

    fn header(&self) -> &'static [u8] {
        if self.encoder.is_some() { HEADER } else { b"" }
    }

    fn trailer(&self) -> &'static [u8] {
        if self.encoder.is_some() { TRAILER } else { b"" }
    }

    /// Appends what becomes of the rows that end in `text`.
    fn take(&mut self, text: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        let Some(last) = memchr::memrchr(b'\n', text) else {
            self.carried.extend_from_slice(text);
            return Ok(());
        };
        let (mut whole, rest) = text.split_at(last + 1);
        if !self.carried.is_empty() {
            let end = memchr::memchr(b'\n', whole).map_or(whole.len(), |at| at + 1);
            let mut row = std::mem::take(&mut self.carried);
            row.extend_from_slice(&whole[..end]);
            self.whole(&row, out)?;
            whole = &whole[end..];
        }
        self.carried.extend_from_slice(rest);
        self.whole(whole, out)
    }

    fn whole(&mut self, rows: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        let Some((heights, position)) = self.within else { return self.write(rows, out) };
        for row in rows.split_inclusive(|byte| *byte == b'\n') {
            let height = std::str::from_utf8(&row[field(row, position)]).ok().and_then(|text| text.parse::<u64>().ok());
            if height.is_some_and(|height| heights.from <= height && height <= heights.to) {
                self.write(row, out)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, rows: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match &mut self.encoder {
            Some(encoder) => encoder.encode(rows, out),
            None => {
                out.extend_from_slice(rows);
                Ok(())
            }
        }
    }

    fn end(&self) -> std::io::Result<()> {
        if self.carried.is_empty() { Ok(()) } else { Err(std::io::Error::other("its last row has no end")) }
    }
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
        Decoder::new(body, raw_bytes, Rows::new(filter, None)).run(&full, spare)?;
        drop(full);
        let mut all = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            all.extend(piece.bytes);
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
