//! Where ranges begin and end. Boundaries are multiples of the grid, so that two snapshots of one chain share them.

use crate::chunk::Heights;

/// Blocks in a sealed range.
pub const SEALED_BLOCKS: u64 = 5_000;
/// Blocks in a range of the tail, which is cut again in each snapshot until it fills a sealed one.
pub const TAIL_BLOCKS: u64 = 1_000;

/// A range of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GridRange {
    /// Heights covered.
    pub heights: Heights,
    /// A full range that lies wholly at or below the snapshot's height.
    pub sealed: bool,
}

/// Ranges that cover `first..=last` in order: full ranges of [`SEALED_BLOCKS`], then the tail in [`TAIL_BLOCKS`].
///
/// A chain that does not begin at a boundary gets a shorter first range, which is sealed as well: nothing below it will come.
pub fn ranges(first: u64, last: u64) -> Vec<GridRange> {
    let mut ranges = Vec::new();
    let mut from = first;
    while from <= last {
        let sealed_end = (from / SEALED_BLOCKS + 1) * SEALED_BLOCKS - 1;
        let sealed = sealed_end <= last;
        let to = if sealed { sealed_end } else { last.min((from / TAIL_BLOCKS + 1) * TAIL_BLOCKS - 1) };
        ranges.push(GridRange { heights: Heights { from, to }, sealed });
        from = to + 1;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(first: u64, last: u64) -> Vec<(u64, u64, bool)> {
        ranges(first, last).iter().map(|range| (range.heights.from, range.heights.to, range.sealed)).collect()
    }

    #[test]
    fn full_ranges_are_sealed_and_the_tail_is_cut_in_thousands() {
        assert_eq!(spans(0, 7_200), [(0, 4_999, true), (5_000, 5_999, false), (6_000, 6_999, false), (7_000, 7_200, false)]);
    }

    #[test]
    fn a_range_is_sealed_exactly_when_its_last_block_is_in() {
        assert!(!ranges(0, 4_998).last().unwrap().sealed);
        assert!(ranges(0, 4_999).last().unwrap().sealed);
    }

    #[test]
    fn a_chain_may_begin_anywhere() {
        assert_eq!(spans(13_044, 13_063), [(13_044, 13_063, false)]);
        assert_eq!(spans(4_990, 5_001), [(4_990, 4_999, true), (5_000, 5_001, false)]);
    }

    #[test]
    fn growing_chains_share_sealed_boundaries() {
        let before = ranges(0, 23_456);
        let after = ranges(0, 31_000);
        assert!(before.iter().filter(|range| range.sealed).all(|range| after.contains(range)));
    }
}
