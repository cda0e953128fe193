//! Tables to load whole and indexes to build, shared by several connections.
//!
//! Some constraints are added under a lock that nobody else may have a share in, while several indexes of one table can be built at
//! once. A connection that would wait for such a lock takes what can be done meanwhile.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Part;
use super::indexes::Index;

/// What a connection does next.
pub(super) enum Work<'a> {
    Rows(VecDeque<Part>),
    Index(&'a Index),
}

/// When there is nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Once all rows are there: what is left of the indexes is a step of its own, whose progress is told.
    Rows,
    /// Once all indexes are taken.
    Indexes,
}

#[derive(Default)]
struct Waiting<'a> {
    /// Tables without their rows, the largest first.
    tables: VecDeque<VecDeque<Part>>,
    /// Tables that are being loaded.
    loading: usize,
    /// Indexes of tables with their rows.
    indexes: VecDeque<&'a Index>,
    building: Vec<&'a Index>,
}

/// Work that several connections share.
pub(super) struct Worklist<'a> {
    all: &'a [Index],
    until: Until,
    waiting: Mutex<Waiting<'a>>,
    changed: Notify,
}

impl<'a> Worklist<'a> {
    pub(super) fn new(all: &'a [Index], until: Until, tables: VecDeque<VecDeque<Part>>, indexes: VecDeque<&'a Index>) -> Self {
        let waiting = Waiting { tables, indexes, ..Waiting::default() };
        Self { all, until, waiting: Mutex::new(waiting), changed: Notify::new() }
    }

    /// Rows before indexes; waits while there will be something to do.
    pub(super) async fn next(&self) -> Option<Work<'a>> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut waiting = self.waiting();
                if let Some(parts) = waiting.tables.pop_front() {
                    waiting.loading += 1;
                    return Some(Work::Rows(parts));
                }
                if waiting.is_over(self.until) {
                    return None;
                }
                if let Some(index) = waiting.index() {
                    return Some(Work::Index(index));
                }
            }
            changed.await;
        }
    }

    /// A table has its rows.
    pub(super) fn loaded(&self, table: &str) {
        let mut waiting = self.waiting();
        waiting.loading -= 1;
        waiting.indexes.extend(self.all.iter().filter(|index| index.table() == table));
        drop(waiting);
        self.changed.notify_waiters();
    }

    /// An index is there.
    pub(super) fn built(&self, index: &Index) {
        self.waiting().building.retain(|other| !std::ptr::eq(*other, index));
        self.changed.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<'a>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Waiting<'a> {
    fn is_over(&self, until: Until) -> bool {
        self.loading == 0 && (until == Until::Rows || self.indexes.is_empty())
    }

    /// The first index whose table is free for it.
    fn index(&mut self) -> Option<&'a Index> {
        let free = |index: &Index| !self.building.iter().any(|other| exclude(index, other));
        let at = self.indexes.iter().position(|index| free(index))?;
        let index = self.indexes.remove(at)?;
        self.building.push(index);
        Some(index)
    }
}

/// Whether the locks of two definitions exclude each other.
fn exclude(a: &Index, b: &Index) -> bool {
    a.table() == b.table() && (a.is_alone() || b.is_alone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::{Section, TocEntry};

    fn index(dump_id: i32, desc: &str, table: &str) -> Index {
        let entry = TocEntry {
            dump_id,
            has_data: false,
            catalog_oid: 0,
            object_oid: 0,
            tag: Some(format!("{table} {table}_{dump_id}")),
            desc: Some(desc.into()),
            section: Section::PostData,
            definition: Some(format!("CREATE INDEX i{dump_id} ON public.{table} USING btree (x);")),
            drop_statement: None,
            copy_statement: None,
            namespace: Some("public".into()),
            tablespace: None,
            access_method: None,
            owner: None,
            dependencies: Vec::new(),
            file_name: None,
        };
        Index::new(entry, false)
    }

    #[test]
    fn a_constraint_is_alone_on_its_table_and_indexes_share_one() {
        let [key, a, b, other] = [
            index(1, "CONSTRAINT", "events"),
            index(2, "INDEX", "events"),
            index(3, "INDEX", "events"),
            index(4, "INDEX", "blocks"),
        ];
        let mut waiting = Waiting { indexes: VecDeque::from([&key, &a, &b, &other]), ..Waiting::default() };
        let mut taken = || waiting.index().map(std::ptr::from_ref);
        assert_eq!(
            [taken(), taken(), taken()],
            [Some(&raw const key), Some(&raw const other), None],
            "beside a key only other tables' indexes are built"
        );
        waiting.building.clear();
        let mut taken = || waiting.index().map(std::ptr::from_ref);
        assert_eq!(
            [taken(), taken(), taken()],
            [Some(&raw const a), Some(&raw const b), None],
            "indexes of one table are built at once"
        );
    }
}
