//! The rows of an update.
//!
//! A genuine chain ties heights together in any way: a transaction that was mined again keeps its first height while its events stand
//! at the new one, and repairs move rows. So rows are merged by their keys, parents before children, and what is old is taken away
//! last, children before parents: at no statement does a row lack the one that it points at, or meet its own old copy. Invariant:
//! what replaces old rows commits as one, with its lines in the ledger; of what is new each chunk does. A kill leaves
//! rows that are all old or all new, and the next run does the rest.

use std::sync::atomic::AtomicU64;

use sqlx::{Connection, PgConnection};

use super::copy::{Freeze, copy};
use super::rows::{PARENTS_FIRST, shape, tell};
use super::update::Work;
use super::{Job, LoadError, Part, ledger};
use crate::chunk::Chunk;
use crate::columns::{TableShape, quote};

impl Job<'_> {
    /// Brings everything that is lacking; returns rows and bytes of text.
    pub(super) async fn replace(&self, work: &Work, schema: &[u8]) -> Result<(u64, u64), LoadError> {
        let at = || LoadError::at("begin the update");
        let mut conn = self.pool.acquire().await.map_err(at())?;
        ledger::begin_update(&mut conn, self.opened, schema).await.map_err(at())?;
        let total = work.chunks().map(|chunk| chunk.raw_bytes).sum();
        let done = AtomicU64::new(0);
        let replacing = async {
            let mut rows = 0;
            let (events, parents): (Vec<_>, Vec<_>) = work.new.iter().partition(|chunk| chunk.table == "events");
            for chunk in parents {
                rows += self.add(&mut conn, chunk, &done).await?;
            }
            rows += self.rewrite(&mut conn, work, &done).await?;
            for chunk in events {
                rows += self.add(&mut conn, chunk, &done).await?;
            }
            for chunk in &work.small {
                rows += self.replace_small(&mut conn, chunk, &done).await?;
            }
            Ok::<u64, LoadError>(rows)
        };
        let rows = tokio::select! {
            rows = replacing => rows?,
            () = tell(self, &done, total) => 0,
        };
        self.watch.progress(total, total, "bytes");
        Ok((rows, total))
    }

    /// A chunk of heights of which nothing is there. Its rows may be there all the same, at heights where they were before.
    async fn add(&self, conn: &mut PgConnection, chunk: &Chunk, done: &AtomicU64) -> Result<u64, LoadError> {
        let at = || LoadError::at(format!("add {}", chunk.file_name()));
        let mut tx = conn.begin().await.map_err(at())?;
        let rows = self.merge(&mut tx, &chunk.table, &[chunk], done).await?;
        tx.commit().await.map_err(at())?;
        Ok(rows)
    }

    async fn rewrite(&self, conn: &mut PgConnection, work: &Work, done: &AtomicU64) -> Result<u64, LoadError> {
        let at = || LoadError::at("replace what is old");
        let mut tx = conn.begin().await.map_err(at())?;
        for (table, old) in &work.stale {
            ledger::forget(&mut tx, table, Some((old.from, old.to))).await.map_err(at())?;
        }
        let mut rows = 0;
        for (table, ..) in PARENTS_FIRST {
            let chunks: Vec<&Chunk> = work.rewritten.iter().filter(|chunk| chunk.table == table).collect();
            rows += self.merge(&mut tx, table, &chunks, done).await?;
        }
        for (table, key, height) in PARENTS_FIRST.into_iter().rev() {
            let [name, incoming] = [quote(table), incoming(table)];
            let sql = format!(
                "delete from public.{name} old where {height} between $1 and $2
                    and not exists (select from pg_temp.{incoming} new where new.{key} = old.{key})"
            );
            for (_, old) in work.stale.iter().filter(|(of, _)| of == table) {
                let delete =
                    sqlx::query(sqlx::AssertSqlSafe(sql.clone())).bind(old.from.cast_signed()).bind(old.to.cast_signed());
                delete.execute(&mut *tx).await.map_err(at())?;
            }
        }
        tx.commit().await.map_err(at())?;
        Ok(rows)
    }

    /// Rows of chunks of one table, in place of those with the same keys. They stay in a temporary table until the commit.
    async fn merge(&self, tx: &mut PgConnection, table: &str, chunks: &[&Chunk], done: &AtomicU64) -> Result<u64, LoadError> {
        let at = || LoadError::at(format!("merge rows into {table}"));
        let name = incoming(table);
        let create = format!("create temp table {name} (like public.{} including defaults) on commit drop", quote(table));
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut *tx).await.map_err(at())?;
        let mut rows = 0;
        for chunk in chunks {
            let fetched = self.fetch(Part { chunk: (*chunk).clone(), within: None }).await?;
            let shape = shape(self, &fetched.part)?;
            ledger::claim(tx, chunk, chunk.rows).await.map_err(at())?;
            let into = TableShape { name: name.clone(), schema: Some("pg_temp".into()), ..shape.clone() };
            rows += copy(tx, &into, fetched, Freeze::No, done).await?;
        }
        if let Some(shape) = self.opened.manifest.shapes.iter().find(|shape| shape.name == table) {
            sqlx::raw_sql(sqlx::AssertSqlSafe(merge_statement(shape))).execute(&mut *tx).await.map_err(at())?;
        }
        Ok(rows)
    }

    async fn replace_small(&self, conn: &mut PgConnection, chunk: &Chunk, done: &AtomicU64) -> Result<u64, LoadError> {
        let at = || LoadError::at(format!("replace the rows of {}", chunk.table));
        let mut tx = conn.begin().await.map_err(at())?;
        let sql = format!("delete from public.{}", quote(&chunk.table));
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.map_err(at())?;
        ledger::forget(&mut tx, &chunk.table, None).await.map_err(at())?;
        let fetched = self.fetch(Part { chunk: chunk.clone(), within: None }).await?;
        ledger::claim(&mut tx, chunk, chunk.rows).await.map_err(at())?;
        let rows = copy(&mut tx, shape(self, &fetched.part)?, fetched, Freeze::No, done).await?;
        tx.commit().await.map_err(at())?;
        Ok(rows)
    }
}

/// Name of the temporary table that holds rows before they are merged.
fn incoming(table: &str) -> String {
    format!("incoming_{table}")
}

/// Rows that are there already stay untouched. They are compared as text, since not every type can be compared.
fn merge_statement(shape: &TableShape) -> String {
    let key = PARENTS_FIRST.iter().find(|(table, ..)| *table == shape.name).map_or("", |(_, key, _)| *key);
    let each = |of: &str| shape.columns.iter().map(|column| format!("{of}.{}", quote(column))).collect::<Vec<_>>().join(", ");
    let set = shape.columns.iter().map(|column| format!("{0} = excluded.{0}", quote(column))).collect::<Vec<_>>().join(", ");
    format!(
        "insert into {} as old ({columns}) select {columns} from pg_temp.{}
         on conflict ({key}) do update set {set} where row({})::text is distinct from row({})::text",
        shape.qualified(),
        incoming(&shape.name),
        each("old"),
        each("excluded"),
        columns = shape.column_list(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_merged_by_key_and_equal_ones_are_left_alone() {
        let columns = ["height", "hash"].map(str::to_owned).to_vec();
        let shape = TableShape { name: "blocks".into(), schema: None, columns, order: Vec::new(), height: None };
        let sql = merge_statement(&shape);
        assert!(
            sql.contains("on conflict (height) do update set \"height\" = excluded.\"height\", \"hash\" = excluded.\"hash\""),
            "{sql}"
        );
        assert!(
            sql.ends_with(
                "row(old.\"height\", old.\"hash\")::text is distinct from row(excluded.\"height\", excluded.\"hash\")::text"
            ),
            "{sql}"
        );
    }
}
