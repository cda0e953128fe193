//! Which chunk comes next when several connections load at once.
//!
//! Two COPYs into one table wait for each other while it grows, so each worker goes to the table that fewest others load, and
//! among those to the one with most left: the large table never stands still, and the small ones are done beside it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Part;

struct Table {
    name: String,
    parts: VecDeque<Part>,
    left_bytes: u64,
}

struct Waiting {
    tables: Vec<Table>,
    /// Index of the table that each worker took its last part from.
    on: Vec<Option<usize>>,
}

/// Parts that wait, by table.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
}

impl Queue {
    pub(super) fn new(parts: Vec<Part>, workers: usize) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        for part in parts {
            let bytes = part.chunk.raw_bytes;
            match tables.iter_mut().find(|table| table.name == part.chunk.table) {
                Some(table) => {
                    table.left_bytes += bytes;
                    table.parts.push_back(part);
                }
                None => {
                    let name = part.chunk.table.clone();
                    tables.push(Table { name, parts: VecDeque::from([part]), left_bytes: bytes });
                }
            }
        }
        Self { waiting: Mutex::new(Waiting { tables, on: vec![None; workers] }) }
    }

    /// The next part for a worker.
    pub(super) fn next(&self, worker: usize) -> Option<Part> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { tables, on } = &mut *waiting;
        let others = |table: usize| on.iter().enumerate().filter(|(other, on)| *other != worker && **on == Some(table)).count();
        let open = tables.iter().enumerate().filter(|(_, table)| !table.parts.is_empty());
        let best = open.min_by_key(|(index, table)| (others(*index), Reverse(table.left_bytes))).map(|(index, _)| index);
        on[worker] = best;
        let table = &mut tables[best?];
        let part = table.parts.pop_front()?;
        table.left_bytes -= part.chunk.raw_bytes;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Chunk;

    fn part(table: &str, raw_bytes: u64) -> Part {
        let (sha256, content_sha256) = (String::new(), String::new());
        let chunk = Chunk {
            table: table.into(),
            heights: None,
            part: 0,
            rows: 0,
            raw_bytes,
            bytes: 0,
            sha256,
            content_sha256,
            sealed: true,
        };
        Part { chunk, within: None }
    }

    #[test]
    fn workers_keep_apart_while_there_is_another_table_and_share_the_last() {
        let queue = Queue::new(vec![part("a", 5), part("b", 50), part("b", 50), part("b", 50), part("a", 5)], 2);
        let mut next = |worker| queue.next(worker).map(|part| part.chunk.table);
        let taken: Vec<_> = [0, 1, 0, 1, 1, 0].into_iter().map(&mut next).collect();
        assert_eq!(
            taken,
            ["b", "a", "b", "a", "b"].map(|table| Some(table.to_owned())).into_iter().chain([None]).collect::<Vec<_>>()
        );
    }
}
