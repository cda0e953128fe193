//! Rows as COPY text: the statement, the session that makes it canonical, and the stream in blocks of whole rows.

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, Postgres, Transaction};

use crate::chunk::Heights;
use crate::columns::{TableShape, quote};

/// Rows are handed on in blocks of about this size: large enough that the hand-over costs nothing.
const BLOCK_BYTES: usize = 256 << 10;

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

/// The statement that reads a range of a table in its total order.
pub(super) fn copy_range(shape: &TableShape, heights: Heights) -> String {
    let height = quote(shape.height.as_deref().unwrap_or("height"));
    format!(
        "copy (select {columns} from public.{table} where {height} between {from} and {to} order by {order}) to stdout",
        columns = shape.column_list(),
        table = quote(&shape.name),
        from = heights.from,
        to = heights.to,
        order = shape.order_list(),
    )
}

/// A running COPY TO STDOUT.
pub(super) struct RowStream<'a> {
    conn: &'a mut PgConnection,
    sql: &'a str,
}

impl<'a> RowStream<'a> {
    pub(super) fn new(conn: &'a mut PgConnection, sql: &'a str) -> Self {
        Self { conn, sql }
    }

    /// Sends the rows in blocks that end with a whole row. When the receiver hangs up early, the rest of the rows is
    /// read and dropped, so that the connection stays usable.
    pub(super) async fn forward(self, sender: tokio::sync::mpsc::Sender<Vec<u8>>) -> sqlx::Result<()> {
        let mut rows = self.conn.copy_out_raw(self.sql).await?;
        let mut block = Vec::with_capacity(BLOCK_BYTES + (BLOCK_BYTES >> 2));
        while let Some(row) = rows.try_next().await? {
            block.extend_from_slice(&row);
            if block.len() >= BLOCK_BYTES {
                let full = std::mem::replace(&mut block, Vec::with_capacity(BLOCK_BYTES + (BLOCK_BYTES >> 2)));
                let _ = sender.send(full).await;
            }
        }
        if !block.is_empty() {
            let _ = sender.send(block).await;
        }
        Ok(())
    }
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
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    let worker = tokio::task::spawn_blocking(move || {
        let (mut digest, mut rows, mut raw_bytes) = (Sha256::new(), 0, 0);
        while let Some(block) = receiver.blocking_recv() {
            digest.update(&block);
            rows += block.iter().filter(|byte| **byte == b'\n').count() as u64;
            raw_bytes += block.len() as u64;
        }
        RangeDigest { rows, raw_bytes, content_sha256: hex::encode(digest.finalize()) }
    });
    RowStream::new(conn, &sql).forward(sender).await?;
    worker.await.map_err(|panic| sqlx::Error::Io(std::io::Error::other(panic)))
}

/// All rows of a small table in order.
pub(crate) fn select_all(shape: &TableShape) -> String {
    format!("select {} from public.{} order by {}", shape.column_list(), quote(&shape.name), shape.order_list())
}
