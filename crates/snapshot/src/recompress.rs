//! Compresses a stored chunk again, at a level that is worth its time once for history that never changes.
//!
//! The rows stay the same, byte for byte: both digests are checked on the way. One frame instead of many, since a longer
//! window is what a high level lives on; its window stays at zstd's 8 MiB, so stock `zstd -d` needs no flag.

use std::io::{Read, Write};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::chunk::Chunk;

/// Level of resealed chunks (notes: ratio 6.75 against 5.27 at level 3, for events; levels between are poor value).
pub const LEVEL: i32 = 19;
/// Raw bytes decoded at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A chunk that cannot be compressed again.
#[derive(Debug, thiserror::Error)]
pub enum RecompressError {
    /// The object is not what its name says.
    #[error("the stored object of {chunk} has sha256 {found}; run `snapshots run start scrub` to have it marked and cut anew")]
    Damaged {
        /// Its file name in archives.
        chunk: String,
        /// What it has.
        found: String,
    },
    /// Its rows are not those of the manifest.
    #[error("the rows stored for {chunk} have digest {found}, which its manifest does not say")]
    Content {
        /// Its file name in archives.
        chunk: String,
        /// What they have.
        found: String,
    },
    /// zstd failed.
    #[error("cannot compress {chunk} again")]
    Zstd {
        /// Its file name in archives.
        chunk: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// The chunk's object at [`LEVEL`]; CPU-bound, for seconds. Memory: both objects and zstd's tables, some 100 MB.
///
/// # Errors
/// [`RecompressError`].
pub fn recompress(chunk: &Chunk, object: &[u8]) -> Result<Bytes, RecompressError> {
    let found = hex::encode(Sha256::digest(object));
    if found != chunk.sha256 {
        return Err(RecompressError::Damaged { chunk: chunk.file_name(), found });
    }
    let zstd = |source| RecompressError::Zstd { chunk: chunk.file_name(), source };
    let (object, content) = compress(chunk.raw_bytes, object).map_err(zstd)?;
    if content != chunk.content_sha256 {
        return Err(RecompressError::Content { chunk: chunk.file_name(), found: content });
    }
    Ok(object)
}

fn compress(raw_bytes: u64, object: &[u8]) -> std::io::Result<(Bytes, String)> {
    let mut decoder = zstd::stream::read::Decoder::new(object)?;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(raw_bytes))?;
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        let read = decoder.read(&mut piece)?;
        if read == 0 {
            break;
        }
        digest.update(&piece[..read]);
        encoder.write_all(&piece[..read])?;
    }
    Ok((Bytes::from(encoder.finish()?), hex::encode(digest.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rows: &[u8], object: &[u8]) -> Chunk {
        Chunk {
            table: "events".into(),
            heights: None,
            part: 0,
            rows: 1,
            raw_bytes: rows.len() as u64,
            bytes: object.len() as u64,
            sha256: hex::encode(Sha256::digest(object)),
            content_sha256: hex::encode(Sha256::digest(rows)),
            sealed: true,
        }
    }

    #[test]
    fn the_rows_stay_and_the_object_shrinks() {
        let rows: Vec<u8> =
            (0..40_000_u32).flat_map(|n| format!("{n}\t{}\t{}\n", n % 97, n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let object = [zstd::encode_all(&rows[..100_000], 3).unwrap(), zstd::encode_all(&rows[100_000..], 3).unwrap()].concat();
        let again = recompress(&chunk(&rows, &object), &object).unwrap();
        assert!(again.len() < object.len());
        assert_eq!(zstd::decode_all(&again[..]).unwrap(), rows);
    }

    #[test]
    fn a_damaged_object_or_other_rows_are_refused() {
        let object = zstd::encode_all(&b"1\n"[..], 3).unwrap();
        let good = chunk(b"1\n", &object);
        let mut damaged = object.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(recompress(&good, &damaged), Err(RecompressError::Damaged { .. })));
        let other = Chunk { content_sha256: "0".repeat(64), ..good };
        assert!(matches!(recompress(&other, &object), Err(RecompressError::Content { .. })));
    }
}
