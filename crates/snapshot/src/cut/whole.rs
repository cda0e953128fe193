//! Cuts a whole table for the `full` profile: COPY text in the server's order → parts → zstd → age → one conditional PUT each.
//!
//! Not ordered and not by height: nobody compares such a table with another, it only comes back. Invariants: memory is bounded by
//! a few parts, however large the table; nothing leaves the process unencrypted.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::CutError;
use super::rows::{self, BlockReceiver};
use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::columns::TableShape;
use crate::encrypt::Recipients;
use crate::key::{Key, SnapshotPath};
use crate::store::Store;

/// A part ends at the row that reaches this many bytes of COPY text. Up to five of them are held, compressed or encrypted.
const PART_BYTES: u64 = 32 << 20;

/// Where the parts go.
#[derive(Debug, Clone, Copy)]
pub struct Vault<'a> {
    /// The bucket of the `full` profile.
    pub store: &'a Store,
    /// The snapshot.
    pub path: &'a SnapshotPath,
    /// Who can read it.
    pub recipients: &'a Recipients,
}

impl Vault<'_> {
    /// Encrypts a small object, stores it, and returns its digest and size.
    ///
    /// # Errors
    /// [`CutError::Encrypt`], [`CutError::Store`].
    pub async fn put(&self, what: &str, plain: Vec<u8>) -> Result<(String, u64), CutError> {
        let recipients = self.recipients.clone();
        let sealed = tokio::task::spawn_blocking(move || recipients.encrypt(&plain)).await;
        let sealed = sealed.map_err(|_| CutError::Panicked { table: what.to_owned() })?;
        let object = sealed.map_err(|source| CutError::Encrypt { table: what.to_owned(), source })?;
        let sha256 = hex::encode(Sha256::digest(&object));
        let bytes = object.len() as u64;
        self.store(what, &sha256, object).await?;
        Ok((sha256, bytes))
    }

    async fn store(&self, what: &str, sha256: &str, object: Bytes) -> Result<(), CutError> {
        let key = Key::EncryptedChunk(self.path.clone(), sha256.to_owned());
        let put = self.store.put_new(&key, object).await;
        put.map(|_| ()).map_err(|source| CutError::Store { table: what.to_owned(), source })
    }
}

/// Cuts all rows of a table, inside the caller's transaction; a table without rows gives no chunk. `told` hears of each part's text.
///
/// # Errors
/// [`CutError`]; after one the connection is of no use any more.
pub async fn cut_whole(
    conn: &mut PgConnection,
    shape: &TableShape,
    vault: Vault<'_>,
    told: &(impl Fn(u64) + Sync),
) -> Result<Vec<Chunk>, CutError> {
    let table = || shape.name.clone();
    let sql = format!("copy {} ({}) to stdout", shape.qualified(), shape.column_list());
    let (sender, receiver) = rows::blocks();
    let (parts, mut ready) = mpsc::channel(1);
    let recipients = vault.recipients.clone();
    let worker = tokio::task::spawn_blocking(move || seal_parts(receiver, &recipients, &parts));
    let reading =
        async { rows::forward_all(conn, &sql, sender).await.map_err(|source| CutError::Read { table: table(), source }) };
    let storing = async {
        let mut chunks = Vec::new();
        while let Some(sealed) = ready.recv().await {
            let Sealed { object, sha256, content_sha256, rows, raw_bytes } = sealed;
            let (bytes, part) = (object.len() as u64, u32::try_from(chunks.len()).unwrap_or(u32::MAX));
            vault.store(&shape.name, &sha256, object).await?;
            told(raw_bytes);
            let chunk =
                Chunk { table: table(), heights: None, part, rows, raw_bytes, bytes, sha256, content_sha256, sealed: false };
            chunks.push(chunk);
        }
        Ok::<_, CutError>(chunks)
    };
    let ((), chunks) = tokio::try_join!(reading, storing)?;
    worker.await.map_err(|_| CutError::Panicked { table: table() })?.map_err(|failure| failure.of(table()))?;
    Ok(chunks)
}

/// A part that only the recipients can read.
struct Sealed {
    object: Bytes,
    sha256: String,
    content_sha256: String,
    rows: u64,
    raw_bytes: u64,
}

enum Failure {
    Compress(std::io::Error),
    Encrypt(crate::encrypt::EncryptionError),
}

impl Failure {
    fn of(self, table: String) -> CutError {
        match self {
            Self::Compress(source) => CutError::Compress { table, source },
            Self::Encrypt(source) => CutError::Encrypt { table, source },
        }
    }
}

/// A part under way.
struct Part {
    compressed: Buffer,
    content: Sha256,
    rows: u64,
    raw_bytes: u64,
}

impl Part {
    fn new() -> Self {
        Self { compressed: Buffer::new(), content: Sha256::new(), rows: 0, raw_bytes: 0 }
    }

    fn seal(self, recipients: &Recipients) -> Result<Sealed, Failure> {
        let object = recipients.encrypt(&self.compressed).map_err(Failure::Encrypt)?;
        let sha256 = hex::encode(Sha256::digest(&object));
        let content_sha256 = hex::encode(self.content.finalize());
        Ok(Sealed { object, sha256, content_sha256, rows: self.rows, raw_bytes: self.raw_bytes })
    }
}

/// Ends early where nobody takes the parts any more.
fn seal_parts(mut blocks: BlockReceiver, recipients: &Recipients, parts: &mpsc::Sender<Sealed>) -> Result<(), Failure> {
    let mut compressor = super::frame::compressor().map_err(Failure::Compress)?;
    let mut part = Part::new();
    while let Some(block) = blocks.next() {
        part.content.update(&block);
        part.rows += memchr::memchr_iter(b'\n', &block).count() as u64;
        part.raw_bytes += block.len() as u64;
        part.compressed.extend_from_slice(&compressor.compress(&block).map_err(Failure::Compress)?);
        if part.raw_bytes >= PART_BYTES {
            let full = std::mem::replace(&mut part, Part::new());
            if parts.blocking_send(full.seal(recipients)?).is_err() {
                return Ok(());
            }
        }
    }
    if part.rows > 0 {
        // Nobody listening any more is the listener's affair.
        let _ = parts.blocking_send(part.seal(recipients)?);
    }
    Ok(())
}
