//! Takes what a node posts and keeps the chain tables equal to the canonical chain.
//!
//! Not HTTP (see `api`). Invariants: a POST is stored whole, in one transaction, or not at all; whatever the order of
//! arrival, and however often a block is delivered, the tables end the same; one writer at a time per database.

mod adopt;
mod aside;
mod columns;
mod decide;
mod parentage;
mod progress;
mod replay;
mod rows;

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{PgConnection, PgPool};

use crate::model::Block;
use crate::payload::{PayloadError, decode_block};
use crate::recording::RecordingError;
use columns::Columns;
use parentage::Link;
pub use replay::ReplaySummary;

/// Paths a node posts to that hold nothing the chain tables need. `/new_block` is the one that does.
pub const ACKNOWLEDGED: [&str; 9] = [
    "/new_burn_block",
    "/new_microblocks",
    "/new_mempool_tx",
    "/drop_mempool_tx",
    "/attachments/new",
    "/stackerdb_chunks",
    "/proposal_response",
    "/mined_block",
    "/mined_nakamoto_block",
];

/// What became of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A path that holds nothing to store.
    Ignored,
    /// The block was stored before; nothing changed.
    Duplicate {
        /// Its height.
        height: u64,
    },
    /// The block was known without its transactions, as a restarted node delivers genesis; now it has them.
    Completed {
        /// Its height.
        height: u64,
    },
    /// The block is new.
    Stored(Stored),
}

/// A new block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its height.
    pub height: u64,
    /// Whether it is part of the canonical chain now.
    pub canonical: bool,
    /// Number of its transactions.
    pub transactions: usize,
    /// Number of its events.
    pub events: usize,
    /// Heights of blocks that left the canonical chain for it, lowest first.
    pub orphaned: Vec<u64>,
    /// Heights of blocks that became canonical, itself included, lowest first.
    pub adopted: Vec<u64>,
}

/// Why a POST was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The body is at fault; sending it again will not help.
    #[error("malformed block")]
    Malformed(#[from] PayloadError),
    /// The body is at fault: an event names a transaction that is not in the block.
    #[error("malformed block: event {event_index} names transaction {tx_id}, which the block does not contain")]
    StrayEvent {
        /// Which event.
        event_index: u32,
        /// What it names.
        tx_id: String,
    },
    /// No node posts there.
    #[error("unknown path {0}: a node's observer posts /new_block and the like")]
    UnknownPath(String),
    /// The tables are not what we can fill.
    #[error("column public.{table}.{column} must be filled but is unknown here; upgrade this service or give it a default")]
    Column {
        /// Its table.
        table: String,
        /// Its name.
        column: String,
    },
    /// The tables are missing.
    #[error("table public.{0} lacks a column that every version has, or does not exist; run `snapshots migrate`")]
    NoTable(String),
    /// A recording cannot be read.
    #[error("cannot replay")]
    Recording(#[from] RecordingError),
    /// A statement failed; sending the POST again may help.
    #[error("cannot store the block")]
    Database(#[from] sqlx::Error),
}

impl IngestError {
    /// Whether the body is at fault, so that the answer is 400 and not 500.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::StrayEvent { .. })
    }
}

/// The one who writes the chain tables of a database. Share it behind an `Arc`; calls are serialised in the database.
#[derive(Debug)]
pub struct Ingest {
    pool: PgPool,
    network: String,
    reconciled: AtomicBool,
}

impl Ingest {
    /// For a database that [`crate::migrate()`] made ready; `network` names its row in `index_progress`.
    #[must_use]
    pub fn new(pool: PgPool, network: impl Into<String>) -> Self {
        Self { pool, network: network.into(), reconciled: AtomicBool::new(false) }
    }

    /// Checks that the tables can be filled and takes note of blocks that another program stored; call it at the start,
    /// since it looks at every block of the database. Without it the first block stored does this.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub async fn prepare(&self) -> Result<(), IngestError> {
        let mut tx = self.pool.begin().await?;
        progress::lock(&mut tx).await?;
        let columns = Columns::discover(&mut tx).await?;
        adopt::reconcile(&mut tx, &columns).await?;
        tx.commit().await?;
        self.reconciled.store(true, Ordering::Release);
        Ok(())
    }

    /// Stores what was posted to `path`. When it returns, the block is durable.
    ///
    /// # Errors
    /// See [`IngestError`]; nothing of the POST is stored then.
    pub async fn apply(&self, path: &str, body: &[u8]) -> Result<Outcome, IngestError> {
        if ACKNOWLEDGED.contains(&path) {
            return Ok(Outcome::Ignored);
        }
        if path != "/new_block" {
            return Err(IngestError::UnknownPath(path.to_owned()));
        }
        let decoded = decode_block(body)?;
        if decoded.nuls > 0 {
            tracing::warn!(height = decoded.block.height, removed = decoded.nuls, "removed NUL characters from a block");
        }
        for (tx_id, reason) in &decoded.undecodable {
            tracing::warn!(height = decoded.block.height, tx_id, reason, "stored a transaction of an unknown layout");
        }
        self.store(&decoded.block).await
    }

    /// Stores a decoded block, as [`Self::apply`] does for a posted one.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub async fn store(&self, block: &Block) -> Result<Outcome, IngestError> {
        check_events(block)?;
        let mut tx = self.pool.begin().await?;
        progress::lock(&mut tx).await?;
        let columns = Columns::discover(&mut tx).await?;
        if !self.reconciled.load(Ordering::Acquire) {
            adopt::reconcile(&mut tx, &columns).await?;
        }
        let outcome = store_locked(&mut tx, &columns, block).await?;
        if let Outcome::Stored(stored) = &outcome {
            progress::advance(&mut tx, &self.network, stored.height).await?;
        }
        tx.commit().await?;
        self.reconciled.store(true, Ordering::Release);
        Ok(outcome)
    }
}

fn check_events(block: &Block) -> Result<(), IngestError> {
    let known: std::collections::HashSet<&str> = block.transactions.iter().map(|tx| tx.tx_id.as_str()).collect();
    match block.events.iter().find(|event| !known.contains(event.tx_id.as_str())) {
        Some(event) => Err(IngestError::StrayEvent { event_index: event.event_index, tx_id: event.tx_id.clone() }),
        None => Ok(()),
    }
}

async fn store_locked(conn: &mut PgConnection, columns: &Columns, block: &Block) -> Result<Outcome, IngestError> {
    let height = block.height;
    if let Some(known) = parentage::find(conn, &block.index_block_hash).await? {
        if known.transaction_count != Some(0) || block.transactions.is_empty() {
            return Ok(Outcome::Duplicate { height });
        }
        complete(conn, columns, block, &known).await?;
        return Ok(Outcome::Completed { height });
    }
    if parentage::recognise(conn, block).await? {
        return Ok(Outcome::Duplicate { height });
    }
    let link = parentage::insert(conn, block).await?;
    let Some(change) = decide::place(conn, &link).await? else {
        aside::save_given(conn, block).await?;
        return Ok(Outcome::Stored(stored(block, None)));
    };
    leave(conn, &change.leaving).await?;
    for entering in &change.entering {
        enter(conn, columns, entering, (entering.id == link.id).then_some(block)).await?;
    }
    if !change.leaving.is_empty() {
        finish_partial(conn, columns).await?;
    }
    Ok(Outcome::Stored(stored(block, Some(&change))))
}

fn stored(block: &Block, change: Option<&decide::Change>) -> Stored {
    let heights = |links: &[Link]| links.iter().map(|link| link.height.unsigned_abs()).collect();
    Stored {
        height: block.height,
        canonical: change.is_some(),
        transactions: block.transactions.len(),
        events: block.events.len(),
        orphaned: change.map(|c| heights(&c.leaving)).unwrap_or_default(),
        adopted: change.map(|c| heights(&c.entering)).unwrap_or_default(),
    }
}

/// Gives a block that was delivered empty its content.
async fn complete(conn: &mut PgConnection, columns: &Columns, block: &Block, known: &Link) -> Result<(), IngestError> {
    parentage::set_counts(conn, block).await?;
    aside::forget(conn, &known.id).await?;
    if known.canonical {
        return fill(conn, columns, known, block).await;
    }
    Ok(aside::save_given(conn, block).await?)
}

/// Moves blocks out of the chain tables, keeping their rows aside.
async fn leave(conn: &mut PgConnection, leaving: &[Link]) -> Result<(), IngestError> {
    if leaving.is_empty() {
        return Ok(());
    }
    for link in leaving {
        aside::save_stored(conn, link).await?;
    }
    let heights: Vec<i64> = leaving.iter().map(|link| link.height).collect();
    rows::delete(conn, &heights).await?;
    parentage::set_orphaned(conn, &heights).await?;
    tracing::info!(blocks = heights.len(), lowest = heights[0], "blocks left the canonical chain");
    Ok(())
}

/// Brings a block into the chain tables, from the POST in hand or from what was kept aside.
async fn enter(conn: &mut PgConnection, columns: &Columns, link: &Link, given: Option<&Block>) -> Result<(), IngestError> {
    parentage::set_canonical(conn, &link.id).await?;
    if let Some(block) = given {
        rows::upsert_block(conn, columns, block).await?;
        return fill(conn, columns, link, block).await;
    }
    aside::restore_block(conn, columns, &link.id).await?;
    restore(conn, columns, link).await
}

/// Inserts the content of a block in hand. Where another canonical block holds one of its transactions (only possible
/// while blocks between them are missing), what cannot stand yet is kept aside.
async fn fill(conn: &mut PgConnection, columns: &Columns, link: &Link, block: &Block) -> Result<(), IngestError> {
    if rows::any_stored(conn, &block.transactions).await? {
        rows::take_over(conn, &block.transactions).await?;
        aside::save_given(conn, block).await?;
        return restore(conn, columns, link).await;
    }
    rows::insert_transactions(conn, columns, block).await?;
    rows::insert_events(conn, block).await?;
    Ok(())
}

/// Inserts what was kept aside of a block, and forgets it once all of it stands.
async fn restore(conn: &mut PgConnection, columns: &Columns, link: &Link) -> Result<(), IngestError> {
    let whole = aside::restore_content(conn, columns, link).await?;
    parentage::set_partial(conn, &link.id, !whole).await?;
    if whole {
        aside::forget(conn, &link.id).await?;
    }
    Ok(())
}

/// Tries again to complete blocks whose transactions stood elsewhere, now that blocks have left.
async fn finish_partial(conn: &mut PgConnection, columns: &Columns) -> Result<(), IngestError> {
    for link in parentage::partial(conn).await? {
        rows::delete_content(conn, &[link.height]).await?;
        restore(conn, columns, &link).await?;
    }
    Ok(())
}
