//! Rows as COPY text: the statement, the session that makes it canonical, and the stream in blocks of whole heights.

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tokio::sync::mpsc;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::order::RowOrder;
use crate::buffer::Buffer;
use crate::chunk::Heights;
use crate::columns::{TableShape, quote};

/// Rows are handed on in blocks of about this size, each of which becomes one zstd frame. Large enough that neither the
/// hand-over nor the beginning of a frame costs much (measured: 8 MiB frames +0.4 %, 4 MiB +1.2 %), small enough for memory:
/// each cut holds three of them.
pub(super) const BLOCK_BYTES: usize = 4 << 20;

/// Begins a read-only REPEATABLE READ transaction whose COPY text does not depend on the server's or role's settings.
///
/// # Errors
/// The database's.
pub async fn begin_export(conn: &mut PgConnection) -> sqlx::Result<Transaction<'_, Postgres>> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql(
        "set transaction isolation level repeatable read, read only;
         set local datestyle = 'ISO, MDY'; set local intervalstyle = 'postgres'; set local timezone = 'UTC';
         set local extra_float_digits = 1; set local bytea_output = 'hex'; set local client_encoding = 'UTF8';
         set local lock_timeout = '30s'; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
         set local jit = off; set local enable_seqscan = off",
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx)
}

/// The statement that reads a range of a table by height; [`RowOrder`] orders the rows of each height.
pub(super) fn copy_range(shape: &TableShape, heights: Heights) -> String {
    let height = quote(shape.height.as_deref().unwrap_or("height"));
    format!(
        "copy (select {columns} from public.{table} where {height} between {from} and {to} order by {height}) to stdout",
        columns = shape.column_list(),
        table = quote(&shape.name),
        from = heights.from,
        to = heights.to,
    )
}

/// Blocks of rows on their way to a working thread.
pub(super) fn blocks() -> (BlockSender, BlockReceiver) {
    let (sender, receiver) = mpsc::channel(1);
    (BlockSender(sender), BlockReceiver(receiver))
}

/// The reading end of the database's rows.
pub(super) struct BlockSender(mpsc::Sender<Buffer>);

/// The working thread's end.
pub(super) struct BlockReceiver(mpsc::Receiver<Buffer>);

impl BlockSender {
    /// Hands a block on and returns an empty one. Where nobody listens any more, the rows are dropped.
    async fn send(&self, block: Buffer) -> Buffer {
        let _ = self.0.send(block).await;
        Buffer::new()
    }
}

impl BlockReceiver {
    /// The next block, or nothing at the end. Blocks the thread.
    pub(super) fn next(&mut self) -> Option<Buffer> {
        self.0.blocking_recv()
    }
}

/// Runs a COPY TO STDOUT and sends its rows in blocks of whole heights. When the receiver hangs up early, the rest is read and
/// dropped, so that the connection stays usable.
pub(super) async fn forward(conn: &mut PgConnection, sql: &str, order: &RowOrder, sender: BlockSender) -> sqlx::Result<()> {
    let mut rows = copy_out(conn, sql).await?;
    let mut block = Buffer::new();
    let mut height = Vec::new();
    while let Some(row) = rows.try_next().await? {
        if block.len() >= BLOCK_BYTES && order.height(&row) != height {
            block = sender.send(block).await;
        }
        // Only the height at the moment of a possible cut matters.
        if block.len() + row.len() >= BLOCK_BYTES {
            height.clear();
            height.extend_from_slice(order.height(&row));
        }
        block.extend_from_slice(&row);
    }
    if !block.is_empty() {
        sender.send(block).await;
    }
    Ok(())
}

/// As [`forward`], for rows that need not stay together.
pub(super) async fn forward_all(conn: &mut PgConnection, sql: &str, sender: BlockSender) -> sqlx::Result<()> {
    let mut rows = copy_out(conn, sql).await?;
    let mut block = Buffer::new();
    while let Some(row) = rows.try_next().await? {
        block.extend_from_slice(&row);
        if block.len() >= BLOCK_BYTES {
            block = sender.send(block).await;
        }
    }
    if !block.is_empty() {
        sender.send(block).await;
    }
    Ok(())
}

/// Begins a COPY. sqlx keeps the current span with the stream and enters it for each row, which with a subscriber's layers took
/// 2 % of the CPU of a cut; so it is begun where there is no span.
async fn copy_out<'c>(conn: &'c mut PgConnection, sql: &str) -> sqlx::Result<BoxStream<'c, sqlx::Result<Bytes>>> {
    conn.copy_out_raw(sql).with_subscriber(NoSubscriber::new()).await
}

/// What a range of rows looks like now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeDigest {
    /// Number of rows.
    pub rows: u64,
    /// Bytes of COPY text.
    pub raw_bytes: u64,
    /// sha256 (hex) of the COPY text.
    pub content_sha256: String,
}

/// Re-reads what a chunk was cut from (`heights`, or the whole of a small table) and digests it.
///
/// # Errors
/// The database's.
pub async fn digest_rows(conn: &mut PgConnection, shape: &TableShape, heights: Option<Heights>) -> sqlx::Result<RangeDigest> {
    let sql = match heights {
        Some(heights) => copy_range(shape, heights),
        None => format!("copy ({}) to stdout", select_all(shape)),
    };
    let order = if heights.is_some() { RowOrder::of(shape) } else { RowOrder::none() };
    let (sender, mut receiver) = blocks();
    let within = order.clone();
    let worker = tokio::task::spawn_blocking(move || {
        let (mut digest, mut rows, mut raw_bytes) = (Sha256::new(), 0, 0);
        while let Some(mut block) = receiver.next() {
            within.apply(&mut block);
            digest.update(&block);
            rows += memchr::memchr_iter(b'\n', &block).count() as u64;
            raw_bytes += block.len() as u64;
        }
        RangeDigest { rows, raw_bytes, content_sha256: hex::encode(digest.finalize()) }
    });
    forward(conn, &sql, &order, sender).await?;
    worker.await.map_err(|panic| sqlx::Error::Io(std::io::Error::other(panic)))
}

/// All rows of a small table in order: the one query both for cutting it and for verifying it, so that a database of another
/// locale gives the same bytes.
pub fn select_all(shape: &TableShape) -> String {
    format!("select {} from public.{} order by {}", shape.column_list(), quote(&shape.name), shape.order_list())
}
