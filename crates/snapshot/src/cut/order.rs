//! The total order of rows inside one block of the chain.
//!
//! The server hands rows over by height, which its index gives for nothing; the few rows of each height are put in order here,
//! at a fraction of what a sort of whole rows costs the server. Invariant: the order depends on the rows alone, so a range cut
//! from any copy of a database is the same bytes.

use std::ops::Range;

use crate::columns::TableShape;

/// Where a row's height and the rest of its key are.
#[derive(Debug, Clone)]
pub(super) struct RowOrder {
    height: Option<usize>,
    index: Option<usize>,
    texts: Vec<usize>,
}

/// A row's place inside a block of rows, and its key.
struct Row {
    all: Range<usize>,
    index: i64,
    texts: [Range<usize>; 2],
}

impl RowOrder {
    /// From the table's `order`: the height, then perhaps a number (`tx_index`, `event_index`), then up to two texts.
    pub(super) fn of(shape: &TableShape) -> Self {
        let is_number = |column: &String| column == "tx_index" || column == "event_index";
        let is_height = |column: &String| Some(column) == shape.height.as_ref();
        let rest = || shape.order.iter().filter(|column| !is_height(column));
        Self {
            height: shape.height.as_deref().and_then(|column| shape.position(column)),
            index: rest().find(|column| is_number(column)).and_then(|column| shape.position(column)),
            texts: rest().filter(|column| !is_number(column)).filter_map(|column| shape.position(column)).collect(),
        }
    }

    /// For rows that the server has ordered already.
    pub(super) fn none() -> Self {
        Self { height: None, index: None, texts: Vec::new() }
    }

    /// The height field of a row, or nothing for a table without heights.
    pub(super) fn height<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        self.height.map_or(&row[..0], |at| &row[field(row, at)])
    }

    /// Puts the rows of each height in order. `block` holds whole rows and whole heights.
    pub(super) fn apply(&self, block: &mut [u8]) {
        if self.index.is_none() && self.texts.is_empty() {
            return;
        }
        let mut group = Vec::new();
        let (mut start, mut sorted) = (0, true);
        let mut moved = Vec::new();
        while start < block.len() {
            let row = self.row(block, start);
            let same_height = group
                .last()
                .is_none_or(|last: &Row| self.height(&block[last.all.clone()]) == self.height(&block[row.all.clone()]));
            if !same_height {
                if !sorted {
                    rearrange(block, &mut group, &mut moved);
                }
                group.clear();
                sorted = true;
            }
            sorted &= group.last().is_none_or(|last| key(block, last) <= key(block, &row));
            start = row.all.end;
            group.push(row);
        }
        if !sorted {
            rearrange(block, &mut group, &mut moved);
        }
    }

    fn row(&self, block: &[u8], start: usize) -> Row {
        let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |at| start + at + 1);
        let row = &block[start..end];
        let at = |position: usize| {
            let found = field(row, position);
            start + found.start..start + found.end
        };
        let index = self.index.map_or(0, |position| number(&row[field(row, position)]));
        let text = |n: usize| self.texts.get(n).map_or(start..start, |position| at(*position));
        Row { all: start..end, index, texts: [text(0), text(1)] }
    }
}

fn key<'a>(block: &'a [u8], row: &Row) -> (i64, &'a [u8], &'a [u8]) {
    (row.index, &block[row.texts[0].clone()], &block[row.texts[1].clone()])
}

/// Writes a height's rows back in order; they fill the same bytes as before.
fn rearrange(block: &mut [u8], group: &mut [Row], moved: &mut Vec<u8>) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let place = first.all.start..last.all.end;
    group.sort_unstable_by(|a, b| key(block, a).cmp(&key(block, b)));
    moved.clear();
    for row in group {
        moved.extend_from_slice(&block[row.all.clone()]);
    }
    block[place].copy_from_slice(moved);
}

/// Where the field at `position` of a row of COPY text is.
pub(crate) fn field(row: &[u8], position: usize) -> Range<usize> {
    let mut start = 0;
    for _ in 0..position {
        match memchr::memchr(b'\t', &row[start..]) {
            Some(tab) => start += tab + 1,
            None => return row.len()..row.len(),
        }
    }
    let end = memchr::memchr2(b'\t', b'\n', &row[start..]).map_or(row.len(), |at| start + at);
    start..end
}

fn number(field: &[u8]) -> i64 {
    let (digits, sign) = field.strip_prefix(b"-").map_or((field, 1), |digits| (digits, -1));
    sign * digits.iter().fold(0_i64, |sum, digit| sum.wrapping_mul(10).wrapping_add(i64::from(digit.wrapping_sub(b'0') % 10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> RowOrder {
        let columns = ["id", "tx_id", "block_height", "event_index", "data"].map(str::to_owned).to_vec();
        let order = ["block_height", "event_index", "tx_id", "id"].map(str::to_owned).to_vec();
        RowOrder::of(&TableShape { name: "events".into(), schema: None, columns, order, height: Some("block_height".into()) })
    }

    fn applied(rows: &str) -> String {
        let mut block = rows.as_bytes().to_vec();
        events().apply(&mut block);
        String::from_utf8(block).unwrap()
    }

    #[test]
    fn rows_of_a_height_are_ordered_by_number_then_by_text() {
        let rows = "d\tt2\t7\t10\tlong one\nb\tt1\t7\t2\t\na\tt1\t7\t10\tx\nc\tt2\t7\t10\t\nz\tt0\t8\t0\ty\n";
        let ordered = "b\tt1\t7\t2\t\na\tt1\t7\t10\tx\nc\tt2\t7\t10\t\nd\tt2\t7\t10\tlong one\nz\tt0\t8\t0\ty\n";
        assert_eq!(applied(rows), ordered);
        assert_eq!(applied(ordered), ordered);
    }

    #[test]
    fn heights_keep_their_places() {
        let rows = "b\tt\t9\t1\t\na\tt\t9\t0\t\nd\tt\t10\t1\t\nc\tt\t10\t0\t\n";
        assert_eq!(applied(rows), "a\tt\t9\t0\t\nb\tt\t9\t1\t\nc\tt\t10\t0\t\nd\tt\t10\t1\t\n");
    }

    #[test]
    fn a_field_is_found_at_either_end_of_a_row() {
        let row = b"first\t\tlast\n";
        let text = |position| String::from_utf8_lossy(&row[field(row, position)]).into_owned();
        assert_eq!((text(0), text(1), text(2), text(3)), ("first".into(), String::new(), "last".into(), String::new()));
    }
}
