//! What a snapshot says about the quality of its rows.
//!
//! Gaps and broken parent links refuse a snapshot (see `height`); everything here is counted, published, and left as it is,
//! because a snapshot repeats the database and does not repair it.

use serde::{Deserialize, Serialize};

/// Counts over all rows of a snapshot. Zero everywhere is a clean chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Heights without a canonical block.
    pub gaps: u64,
    /// Blocks whose parent hash is not the hash of the block below.
    pub broken_links: u64,
    /// Events that repeat the (height, transaction, event index) of another.
    pub duplicate_events: u64,
    /// Transactions that repeat a (height, tx_index) other than 0, which older databases give to all.
    pub duplicate_tx_index: u64,
    /// Transactions or events whose block is not in the snapshot, and events whose transaction is not.
    pub orphan_rows: u64,
    /// Events that stand at another height than their transaction.
    pub height_mismatches: u64,
    /// Blocks with timestamp 0.
    pub zero_timestamps: u64,
    /// Transactions whose raw bytes are a placeholder (`0x00`, `0x01`).
    pub placeholder_raw_tx: u64,
}

impl std::ops::AddAssign for Audit {
    fn add_assign(&mut self, other: Self) {
        self.gaps += other.gaps;
        self.broken_links += other.broken_links;
        self.duplicate_events += other.duplicate_events;
        self.duplicate_tx_index += other.duplicate_tx_index;
        self.orphan_rows += other.orphan_rows;
        self.height_mismatches += other.height_mismatches;
        self.zero_timestamps += other.zero_timestamps;
        self.placeholder_raw_tx += other.placeholder_raw_tx;
    }
}
