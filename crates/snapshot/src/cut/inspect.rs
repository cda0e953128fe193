//! Looks at each row on its way into a chunk, so that the audit of a night costs no further query.
//!
//! Rows of COPY text are fields separated by tabs; tabs and newlines inside a value are escaped, so splitting is exact.
//! Rows arrive in the table's total order, so duplicates are neighbours.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::audit::Audit;
use crate::chunk::Heights;
use crate::columns::TableShape;

/// The ends of a range's piece of the chain, by which neighbours are joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    /// Parent hash of the lowest block.
    pub first_parent: String,
    /// Hash of the highest block.
    pub last_hash: String,
}

/// What the rows of one height range showed. Tables must be cut in load order: blocks, transactions, events.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Counts so far.
    pub audit: Audit,
    /// Ends of the range, once its blocks were cut.
    pub link: ChainLink,
    /// Height of each transaction in the range, by the end of its id.
    heights: Arc<HashMap<u128, u64>>,
    blocks: Arc<std::collections::HashSet<u64>>,
}

impl Inspection {
    /// Goes on where an earlier attempt stopped, with what it had counted; see [`Inspection::recall`].
    pub fn resume(audit: Audit, link: ChainLink) -> Self {
        Self { audit, link, ..Self::default() }
    }

    /// Reads again which blocks and transactions a range holds, after an attempt that had cut them already.
    ///
    /// # Errors
    /// The database's.
    pub async fn recall(&mut self, conn: &mut PgConnection, heights: Heights) -> sqlx::Result<()> {
        self.blocks = Arc::new((heights.from..=heights.to).collect());
        let mut rows = sqlx::query_as::<_, (String, i64)>(
            "select tx_id, block_height from public.transactions where block_height between $1 and $2",
        )
        .bind(heights.from.cast_signed())
        .bind(heights.to.cast_signed())
        .fetch(conn);
        let known = Arc::make_mut(&mut self.heights);
        while let Some((tx_id, height)) = rows.try_next().await? {
            known.insert(end_of(tx_id.as_bytes()), height.unsigned_abs());
        }
        Ok(())
    }

    /// An inspector for the next table, to be given back with [`Inspection::finish`].
    pub(super) fn start(&self, shape: &TableShape) -> Inspector {
        let at = |column: &str| shape.position(column).unwrap_or(usize::MAX);
        let before = self.clone();
        match shape.name.as_str() {
            "blocks" => Inspector::Blocks(Blocks {
                at: [at("height"), at("hash"), at("parent_hash"), at("timestamp"), at("canonical")],
                last_height: None,
                found: before,
            }),
            "transactions" => Inspector::Transactions(Transactions {
                at: [at("tx_id"), at("block_height"), at("tx_index"), at("raw_tx")],
                last: (u64::MAX, 0),
                found: before,
            }),
            "events" => Inspector::Events(Events {
                at: [at("tx_id"), at("block_height"), at("event_index")],
                last: Vec::new(),
                found: before,
            }),
            _ => Inspector::None,
        }
    }

    /// Takes over what an inspector found.
    pub(super) fn finish(&mut self, inspector: Inspector) {
        match inspector {
            Inspector::Blocks(Blocks { found, .. })
            | Inspector::Transactions(Transactions { found, .. })
            | Inspector::Events(Events { found, .. }) => *self = found,
            Inspector::None => {}
        }
    }
}

/// Sees the rows of one table.
pub(super) enum Inspector {
    Blocks(Blocks),
    Transactions(Transactions),
    Events(Events),
    None,
}

pub(super) struct Blocks {
    at: [usize; 5],
    last_height: Option<u64>,
    found: Inspection,
}

pub(super) struct Transactions {
    at: [usize; 4],
    last: (u64, u64),
    found: Inspection,
}

pub(super) struct Events {
    at: [usize; 3],
    last: Vec<u8>,
    found: Inspection,
}

impl Inspector {
    /// Sees a block of whole rows and returns their number.
    pub(super) fn see(&mut self, block: &[u8]) -> u64 {
        let (mut rows, mut start) = (0, 0);
        for end in memchr::memchr_iter(b'\n', block) {
            rows += 1;
            let row = &block[start..end];
            start = end + 1;
            match self {
                Self::Blocks(blocks) => blocks.see(row),
                Self::Transactions(transactions) => transactions.see(row),
                Self::Events(events) => events.see(row),
                Self::None => {}
            }
        }
        rows
    }
}

impl Blocks {
    fn see(&mut self, row: &[u8]) {
        let [height, hash, parent, timestamp, canonical] = fields(row, self.at);
        let height = number(height);
        let found = &mut self.found;
        Arc::make_mut(&mut found.blocks).insert(height);
        found.audit.zero_timestamps += u64::from(timestamp == b"0");
        found.audit.gaps += u64::from(canonical != b"t");
        let parent = String::from_utf8_lossy(parent);
        match self.last_height {
            None if found.link.last_hash.is_empty() => found.link.first_parent = parent.into_owned(),
            Some(last) if last + 1 != height => found.audit.gaps += height - last - 1,
            _ => found.audit.broken_links += u64::from(found.link.last_hash != parent),
        }
        found.link.last_hash = String::from_utf8_lossy(hash).into_owned();
        self.last_height = Some(height);
    }
}

impl Transactions {
    fn see(&mut self, row: &[u8]) {
        let [tx_id, height, index, raw_tx] = fields(row, self.at);
        let (height, index) = (number(height), number(index));
        let found = &mut self.found;
        Arc::make_mut(&mut found.heights).insert(end_of(tx_id), height);
        found.audit.orphan_rows += u64::from(!found.blocks.contains(&height));
        found.audit.placeholder_raw_tx += u64::from(raw_tx == b"0x00" || raw_tx == b"0x01");
        found.audit.duplicate_tx_index += u64::from(index > 0 && self.last == (height, index));
        self.last = (height, index);
    }
}

impl Events {
    fn see(&mut self, row: &[u8]) {
        let [tx_id, height, index] = fields(row, self.at);
        let found = &mut self.found;
        match found.heights.get(&end_of(tx_id)) {
            // Not a transaction of this range: it stands at a far height, or the foreign key was dropped.
            None => found.audit.height_mismatches += 1,
            Some(at) => found.audit.height_mismatches += u64::from(*at != number(height)),
        }
        found.audit.orphan_rows += u64::from(!found.blocks.contains(&number(height)));
        let key_len = tx_id.len() + height.len() + index.len();
        let same = self.last.len() == key_len
            && self.last.starts_with(tx_id)
            && self.last[tx_id.len()..].starts_with(height)
            && self.last.ends_with(index);
        found.audit.duplicate_events += u64::from(same);
        self.last.clear();
        self.last.extend_from_slice(tx_id);
        self.last.extend_from_slice(height);
        self.last.extend_from_slice(index);
    }
}

/// The fields of a row at the wanted positions; empty where a table lacks the column.
fn fields<const N: usize>(row: &[u8], at: [usize; N]) -> [&[u8]; N] {
    let mut wanted = [&row[..0]; N];
    let last = at.iter().copied().filter(|position| *position != usize::MAX).max().unwrap_or(0);
    let mut start = 0;
    for position in 0..=last {
        let end = memchr::memchr(b'\t', &row[start..]).map_or(row.len(), |tab| start + tab);
        if let Some(slot) = at.iter().position(|wanted| *wanted == position) {
            wanted[slot] = &row[start..end];
        }
        if end == row.len() {
            break;
        }
        start = end + 1;
    }
    wanted
}

fn number(field: &[u8]) -> u64 {
    field.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit.wrapping_sub(b'0') % 10))
}

/// The last 16 characters of a transaction id: ids are digests, so 64 bits of one tell it from every other in a range.
fn end_of(tx_id: &[u8]) -> u128 {
    tx_id.iter().rev().take(16).fold(0, |end, byte| end << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str, columns: &[&str]) -> TableShape {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        TableShape { name: name.into(), schema: None, columns, order: vec![], height: None }
    }

    fn inspect(tables: &[(&str, &[&str], &str)]) -> Inspection {
        let mut inspection = Inspection::default();
        for (name, columns, rows) in tables {
            let mut inspector = inspection.start(&shape(name, columns));
            assert_eq!(inspector.see(rows.as_bytes()), rows.lines().count() as u64);
            inspection.finish(inspector);
        }
        inspection
    }

    const BLOCKS: &[&str] = &["height", "hash", "parent_hash", "timestamp", "canonical"];
    const TXS: &[&str] = &["tx_id", "block_height", "raw_tx", "tx_index"];
    const EVENTS: &[&str] = &["id", "tx_id", "block_height", "event_index"];

    #[test]
    fn a_clean_range_counts_nothing_and_shows_its_ends() {
        let found = inspect(&[
            ("blocks", BLOCKS, "7\ta\tz\t9\tt\n8\tb\ta\t9\tt\n"),
            ("transactions", TXS, "t1\t7\t0x80\t0\nt2\t7\t0x80\t1\nt3\t8\t0x80\t0\n"),
            ("events", EVENTS, "u\tt1\t7\t0\nu\tt1\t7\t1\nu\tt3\t8\t0\n"),
        ]);
        assert_eq!(found.audit, Audit::default());
        assert_eq!(found.link, ChainLink { first_parent: "z".into(), last_hash: "b".into() });
    }

    #[test]
    fn each_fault_is_counted_under_its_name() {
        let found = inspect(&[
            ("blocks", BLOCKS, "7\ta\tz\t0\tt\n8\tb\tx\t9\tt\n11\tc\tb\t9\tt\n"),
            ("transactions", TXS, "t1\t7\t0x00\t1\nt2\t7\t0x80\t1\nt3\t9\t0x01\t0\n"),
            ("events", EVENTS, "u\tt1\t7\t0\nv\tt1\t7\t0\nu\tt1\t8\t0\nu\tgone\t8\t1\n"),
        ]);
        let expected = Audit {
            gaps: 2,
            broken_links: 1,
            duplicate_events: 1,
            duplicate_tx_index: 1,
            orphan_rows: 1,
            height_mismatches: 2,
            zero_timestamps: 1,
            placeholder_raw_tx: 2,
        };
        assert_eq!(found.audit, expected);
    }
}
