//! Rows to load and indexes to build, shared by several connections.
//!
//! Two COPYs into one table wait for each other while it grows, so each connection goes to the table that fewest others load, and
//! among those to the one with most left: the large table never stands still, and the small ones are done beside it. Who would
//! have to share a table builds an index of one that is there, if there is one. Some constraints are added under a lock that
//! nobody else may have a share in; who would wait for it takes what can be done meanwhile.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::indexes::Index;

/// Rows that one connection loads at once: a chunk, or a table.
pub(super) struct Rows<R> {
    pub(super) table: String,
    /// Length of their text.
    pub(super) bytes: u64,
    pub(super) rows: R,
}

/// What a connection does next.
pub(super) enum Work<'a, R> {
    Rows(R),
    Index(&'a Index),
}

struct Table<R> {
    name: String,
    open: VecDeque<Rows<R>>,
    left_bytes: u64,
    /// How many of its items are being loaded.
    loading: usize,
}

struct Waiting<'a, R> {
    tables: Vec<Table<R>>,
    /// Index of the table that each worker took its last rows from.
    on: Vec<Option<usize>>,
    /// In the order in which they are built, those of tables without their rows too.
    indexes: VecDeque<&'a Index>,
    building: Vec<&'a Index>,
}

/// Work that several connections share.
pub(super) struct Worklist<'a, R> {
    waiting: Mutex<Waiting<'a, R>>,
    changed: Notify,
}

impl<'a, R> Worklist<'a, R> {
    pub(super) fn new(workers: usize, rows: Vec<Rows<R>>, indexes: VecDeque<&'a Index>) -> Self {
        let mut tables: Vec<Table<R>> = Vec::new();
        for rows in rows {
            let at = tables.iter().position(|table| table.name == rows.table).unwrap_or_else(|| {
                tables.push(Table { name: rows.table.clone(), open: VecDeque::new(), left_bytes: 0, loading: 0 });
                tables.len() - 1
            });
            tables[at].left_bytes += rows.bytes;
            tables[at].open.push_back(rows);
        }
        let waiting = Waiting { tables, on: vec![None; workers], indexes, building: Vec::new() };
        Self { waiting: Mutex::new(waiting), changed: Notify::new() }
    }

    /// What a worker does next; waits while there will be something to do.
    pub(super) async fn next(&self, worker: usize) -> Option<Work<'a, R>> {
        self.once(|waiting| waiting.next(worker).map(Some).or_else(|| waiting.is_over().then_some(None))).await
    }

    /// Waits until nothing is left but indexes.
    pub(super) async fn rows_are_there(&self) {
        self.once(|waiting| waiting.tables.iter().all(Table::is_there).then_some(())).await;
    }

    /// Waits until less than so many indexes are left to be built, and returns how many.
    pub(super) async fn fewer_indexes(&self, than: usize) -> usize {
        self.once(|waiting| Some(waiting.indexes.len() + waiting.building.len()).filter(|left| *left < than)).await
    }

    /// Looks after every change until there is an answer.
    async fn once<T>(&self, mut look: impl FnMut(&mut Waiting<'a, R>) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.waiting()) {
                return found;
            }
            changed.await;
        }
    }

    /// Rows that were taken from a table are there.
    pub(super) fn loaded(&self, table: &str) {
        for of in self.waiting().tables.iter_mut().filter(|of| of.name == table) {
            of.loading -= 1;
        }
        self.changed.notify_waiters();
    }

    /// An index is there.
    pub(super) fn built(&self, index: &Index) {
        self.waiting().building.retain(|other| !std::ptr::eq(*other, index));
        self.changed.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<'a, R>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Table<R> {
    fn is_there(&self) -> bool {
        self.open.is_empty() && self.loading == 0
    }
}

impl<'a, R> Waiting<'a, R> {
    /// Whether nothing is left to be taken, nor will be.
    fn is_over(&self) -> bool {
        self.indexes.is_empty() && self.tables.iter().all(|table| table.open.is_empty())
    }

    fn next(&mut self, worker: usize) -> Option<Work<'a, R>> {
        let others =
            |table: usize| self.on.iter().enumerate().filter(|(other, on)| *other != worker && **on == Some(table)).count();
        let open = self.tables.iter().enumerate().filter(|(_, table)| !table.open.is_empty());
        let best = open.map(|(at, table)| (others(at), Reverse(table.left_bytes), at)).min();
        let shared = best.is_none_or(|(others, ..)| others > 0);
        if let Some(index) = shared.then(|| self.index()).flatten() {
            self.on[worker] = None;
            return Some(Work::Index(index));
        }
        self.on[worker] = best.map(|(.., at)| at);
        let table = &mut self.tables[self.on[worker]?];
        let rows = table.open.pop_front()?;
        table.left_bytes -= rows.bytes;
        table.loading += 1;
        Some(Work::Rows(rows.rows))
    }

    /// The first index whose table has its rows and is free for it.
    fn index(&mut self) -> Option<&'a Index> {
        // What is alone may lock more than its own table, such as that of a table's partitions.
        let there = |index: &Index| {
            let needs = |table: &Table<R>| index.is_alone() || table.name == index.table();
            self.tables.iter().all(|table| table.is_there() || !needs(table))
        };
        let free = |index: &Index| !self.building.iter().any(|other| exclude(index, other));
        let at = self.indexes.iter().position(|index| there(index) && free(index))?;
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
    use futures::FutureExt;

    use super::*;
    use crate::toc::{Section, TocEntry};

    fn index(dump_id: i32, desc: &str, table: &str) -> Index {
        let definition = Some(format!("CREATE INDEX i{dump_id} ON public.{table} USING btree (x);"));
        let entry = TocEntry::sample(dump_id, desc, &format!("{table} {table}_{dump_id}"), Section::PostData);
        Index::new(TocEntry { definition, ..entry }, false)
    }

    fn rows(table: &str, bytes: u64) -> Rows<String> {
        Rows { table: table.into(), bytes, rows: table.into() }
    }

    /// What a worker is given: the table of rows, `i` and the table of an index, `wait`, or `end`.
    fn given(list: &Worklist<'_, String>, worker: usize) -> String {
        match list.next(worker).now_or_never() {
            Some(Some(Work::Rows(table))) => table,
            Some(Some(Work::Index(index))) => format!("i {}", index.table()),
            Some(None) => "end".into(),
            None => "wait".into(),
        }
    }

    #[test]
    fn workers_keep_apart_while_there_is_another_table_and_share_the_last() {
        let parts = vec![rows("a", 5), rows("b", 50), rows("b", 50), rows("b", 50), rows("a", 5)];
        let list = Worklist::new(2, parts, VecDeque::new());
        let taken = [0, 1, 0, 1, 1, 0].map(|worker| given(&list, worker));
        assert_eq!(taken, ["b", "a", "b", "a", "b", "end"]);
    }

    #[test]
    fn who_would_share_a_table_builds_an_index_of_one_that_is_there() {
        let (of_a, of_b) = (index(1, "INDEX", "a"), index(2, "INDEX", "b"));
        let parts = vec![rows("b", 50), rows("b", 50), rows("b", 50), rows("a", 5)];
        let list = Worklist::new(2, parts, VecDeque::from([&of_b, &of_a]));
        assert_eq!([0, 1].map(|worker| given(&list, worker)), ["b", "a"]);
        list.loaded("a");
        assert_eq!([1, 1, 0].map(|worker| given(&list, worker)), ["i a", "b", "b"]);
        list.loaded("b");
        list.loaded("b");
        assert_eq!(given(&list, 0), "wait", "one more of b is being loaded");
        list.loaded("b");
        assert_eq!([0, 0].map(|worker| given(&list, worker)), ["i b", "end"]);
        assert_eq!(list.fewer_indexes(3).now_or_never(), Some(2), "two are being built");
    }

    #[test]
    fn a_constraint_is_alone_on_its_table_and_indexes_share_one() {
        let [key, a, b, other] =
            [index(1, "CONSTRAINT", "t"), index(2, "INDEX", "t"), index(3, "INDEX", "t"), index(4, "INDEX", "u")];
        let list = Worklist::new(4, Vec::new(), VecDeque::from([&key, &a, &b, &other]));
        assert_eq!([0, 1, 2].map(|worker| given(&list, worker)), ["i t", "i u", "wait"]);
        list.built(&key);
        assert_eq!([0, 1, 2].map(|worker| given(&list, worker)), ["i t", "i t", "end"]);
    }
}
