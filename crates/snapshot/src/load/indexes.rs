//! Indexes, primary keys and unique constraints.
//!
//! Adding a key locks its table against every other build on it. So the index of a key is built as an index, which several
//! connections do at once on one table, and becomes the key's when all are there: that takes no time.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use sqlx::{PgConnection, PgPool};

use super::definitions::{make, name, table_of};
use super::{Job, LoadError, ledger};
use crate::toc::TocEntry;

/// Memory of one index build, divided among those that run at once; more than the server's own setting sorts in fewer passes.
const INDEX_MEMORY_MB: usize = 512;

/// An index, or a constraint that rests on one.
pub(super) struct Index {
    entry: TocEntry,
    key: Option<Key>,
}

/// A key that can be made of an index that is there.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    table: String,
    name: String,
    /// `PRIMARY KEY` or `UNIQUE`.
    kind: &'static str,
    columns: String,
}

impl Key {
    /// Of a definition as `pg_dump` writes it, where it says nothing but table, name, kind and columns.
    fn of(definition: &str) -> Option<Self> {
        let rest = definition.trim_end().strip_prefix("ALTER TABLE ONLY ")?;
        let (table, rest) = rest.split_once("\n    ADD CONSTRAINT ")?;
        let rest = rest.strip_suffix(");")?;
        ["PRIMARY KEY", "UNIQUE"].into_iter().find_map(|kind| {
            let (name, columns) = rest.split_once(&format!(" {kind} ("))?;
            // PostgreSQL 18 has keys over periods, which no plain index can stand for.
            let plain = !columns.contains(['(', ')']) && !columns.ends_with(" WITHOUT OVERLAPS");
            plain.then(|| Self { table: table.into(), name: name.into(), kind, columns: columns.into() })
        })
    }

    fn index(&self) -> String {
        format!("create unique index {} on {} ({})", self.name, self.table, self.columns)
    }

    fn constraint(&self) -> String {
        let Self { table, name, kind, .. } = self;
        format!("alter table only {table} add constraint {name} {kind} using index {name}")
    }
}

impl Index {
    /// Of an entry; `split` allows a key to be made in two steps.
    pub(super) fn new(entry: TocEntry, split: bool) -> Self {
        let key = entry.definition.as_deref().filter(|_| split && entry.is("CONSTRAINT")).and_then(Key::of);
        Self { entry, key }
    }

    /// The table it is on.
    pub(super) fn table(&self) -> String {
        table_of(&self.entry)
    }

    /// Whether nothing else can be built on its table meanwhile.
    pub(super) fn is_alone(&self) -> bool {
        self.entry.is("CONSTRAINT") && self.key.is_none()
    }

    /// An estimate of its work, to begin with the longest: sorting is most of it, and texts compare slower than numbers do.
    fn effort(&self, rows: u64, lengths: &Lengths) -> u64 {
        let definition = self.entry.definition.as_deref().unwrap_or_default();
        // What comes before names the table and the index itself.
        let marker = if self.entry.is("INDEX") { " USING " } else { " ADD CONSTRAINT " };
        let said = definition.split_once(marker).map_or("", |(_, said)| said);
        let columns = said.split(|c: char| !c.is_alphanumeric() && c != '_').filter_map(|word| {
            let length = lengths.get(&(self.table(), word.to_owned()))?;
            Some(match length {
                0..=8 => 1,
                9.. => 2,
                // Of no fixed length.
                _ => 3,
            })
        });
        rows * columns.sum::<u64>().max(1)
    }

    /// Names in the ledger: of what is built, and of the whole.
    fn names(&self) -> [String; 2] {
        let whole = name(&self.entry);
        [if self.key.is_some() { format!("{whole} index") } else { whole.clone() }, whole]
    }

    /// Builds it, unless it is there.
    pub(super) async fn build(&self, job: &Job<'_>) -> Result<(), LoadError> {
        let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
        memory(&mut conn, job.options.jobs).await.map_err(LoadError::at("set the memory of an index build"))?;
        let Some(key) = &self.key else { return make(&mut conn, &self.entry).await };
        let [built, whole] = self.names();
        ledger::once(&mut conn, &built, &key.index()).await.map_err(LoadError::at(format!("build the index of {whole}")))
    }

    async fn add_key(&self, conn: &mut PgConnection) -> Result<(), LoadError> {
        let Some(key) = &self.key else { return Ok(()) };
        let [_, whole] = self.names();
        ledger::once(conn, &whole, &key.constraint()).await.map_err(LoadError::at(format!("add {whole}")))
    }
}

/// Those that are not built yet, the longest first, so that none is left alone at the end.
pub(super) async fn left<'a>(job: &Job<'_>, indexes: &'a [Index]) -> Result<VecDeque<&'a Index>, LoadError> {
    let at = || LoadError::at("read what is done");
    let made = ledger::made(job.pool).await.map_err(at())?;
    let lengths = lengths(job.pool).await.map_err(at())?;
    let rows = |index: &Index| job.opened.manifest.tables.get(&index.table()).map_or(0, |table| table.rows);
    let mut left: Vec<&Index> = indexes.iter().filter(|index| !index.names().iter().any(|name| made.contains(name))).collect();
    left.sort_by_cached_key(|index| Reverse(index.effort(rows(index), &lengths)));
    Ok(left.into())
}

/// Bytes of a column's values by table and column; negative where they differ.
type Lengths = HashMap<(String, String), i16>;

async fn lengths(pool: &PgPool) -> sqlx::Result<Lengths> {
    let columns: Vec<(String, String, i16)> = sqlx::query_as(
        "select case n.nspname when 'public' then '' else n.nspname || '.' end || c.relname, a.attname::text, a.attlen
         from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where a.attnum > 0 and c.relkind in ('r', 'p', 'm') and n.nspname <> all ('{pg_catalog,information_schema}')",
    )
    .fetch_all(pool)
    .await?;
    Ok(columns.into_iter().map(|(table, column, length)| ((table, column), length)).collect())
}

/// Makes keys of indexes that are there.
pub(super) async fn add_keys(job: &Job<'_>, indexes: &[Index]) -> Result<(), LoadError> {
    let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
    for index in indexes {
        index.add_key(&mut conn).await?;
    }
    Ok(())
}

/// At least the server's own setting; and no parallel workers of the server's, since several builds run at once.
pub(super) async fn memory(conn: &mut PgConnection, jobs: usize) -> sqlx::Result<()> {
    let megabytes = (INDEX_MEMORY_MB / jobs.max(1)).max(64);
    let sql = format!(
        "select set_config('maintenance_work_mem', greatest({megabytes}::bigint << 20, pg_size_bytes(current_setting('maintenance_work_mem'))) / 1024 || 'kB', false),
                set_config('max_parallel_maintenance_workers', '0', false)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::Section;

    #[test]
    fn a_plain_key_is_an_index_first_and_a_constraint_then() {
        let key = Key::of("ALTER TABLE ONLY public.events\n    ADD CONSTRAINT events_pkey PRIMARY KEY (id);\n").unwrap();
        assert_eq!(key.index(), "create unique index events_pkey on public.events (id)");
        assert_eq!(
            key.constraint(),
            "alter table only public.events add constraint events_pkey PRIMARY KEY using index events_pkey"
        );
        let two = Key::of("ALTER TABLE ONLY x.\"T\"\n    ADD CONSTRAINT \"U k\" UNIQUE (a, \"b C\");").unwrap();
        assert_eq!(two.index(), "create unique index \"U k\" on x.\"T\" (a, \"b C\")");
    }

    #[test]
    fn a_constraint_that_says_more_is_added_as_it_is_written() {
        for rest in [
            "UNIQUE (a) DEFERRABLE;",
            "UNIQUE (a) INCLUDE (b);",
            "PRIMARY KEY (a) WITH (fillfactor='70');",
            "UNIQUE NULLS NOT DISTINCT (a);",
            "PRIMARY KEY (a, valid_at WITHOUT OVERLAPS);",
            "EXCLUDE USING gist (a WITH &&);",
            "PRIMARY KEY (\"a)b\");",
        ] {
            assert_eq!(Key::of(&format!("ALTER TABLE ONLY public.t\n    ADD CONSTRAINT k {rest}")), None, "{rest}");
        }
    }

    fn index(desc: &str, definition: &str) -> Index {
        let entry = TocEntry::sample(1, desc, "events some_name", Section::PostData);
        Index::new(TocEntry { definition: Some(definition.into()), ..entry }, true)
    }

    #[test]
    fn texts_take_longer_than_numbers_and_more_rows_longer_than_few() {
        let lengths =
            [("type", -1), ("id", 16), ("block_height", 8)].map(|(name, length)| (("events".into(), name.into()), length));
        let lengths = Lengths::from(lengths);
        let text = index("INDEX", "CREATE INDEX events_type_idx ON public.events USING btree (type);\n");
        let key = index("CONSTRAINT", "ALTER TABLE ONLY public.events\n    ADD CONSTRAINT events_pkey PRIMARY KEY (id);\n");
        let number = index("INDEX", "CREATE INDEX id ON public.events USING btree (block_height);\n");
        let efforts = [&text, &key, &number].map(|index| index.effort(10, &lengths));
        assert_eq!(efforts, [30, 20, 10]);
        assert!(number.effort(31, &lengths) > text.effort(10, &lengths));
    }
}
