//! Tables, indexes and constraints, from the schema object that the signed manifest names by its digest.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::{PgConnection, PgPool};

use super::indexes::{Index, memory};
use super::{Job, LoadError, Refusal, ledger};
use crate::columns::quote;
use crate::fetch::Source;
use crate::manifest::Manifest;
use crate::toc::{Section, TocEntry};

/// The schema that needs no name before its tables.
const PUBLIC: &str = "public";

/// The schema of a snapshot in the order of its restore.
pub(super) struct Definitions {
    before: Vec<TocEntry>,
    indexes: Vec<Index>,
    foreign_keys: Vec<TocEntry>,
    after: Vec<TocEntry>,
    /// The object that they are from.
    pub(super) object: Bytes,
}

impl Definitions {
    /// Fetches the schema of a snapshot.
    pub(super) async fn fetch(source: &Source, manifest: &Manifest) -> Result<Self, LoadError> {
        let object = schema_object(source, manifest).await?;
        let definitions = manifest.schema.definitions(&object)?;
        let (post, before): (Vec<_>, Vec<_>) = definitions.into_iter().partition(|entry| entry.section == Section::PostData);
        let (indexes, rest): (Vec<_>, Vec<_>) = post.into_iter().partition(|e| e.is("INDEX") || e.is("CONSTRAINT"));
        // No key of a table that has partitions can be made of an index that is there.
        let whole = !before.iter().any(|entry| entry.definition.as_deref().unwrap_or_default().contains("\nPARTITION BY "));
        let indexes = indexes.into_iter().map(|entry| Index::new(entry, whole)).collect();
        let (foreign_keys, after) = rest.into_iter().partition(|entry| entry.is("FK CONSTRAINT"));
        Ok(Self { before, indexes, foreign_keys, after, object })
    }

    /// Extensions that the schema needs and this server cannot make for this role.
    pub(super) async fn refused_extensions(&self, pool: &PgPool) -> Result<Vec<Refusal>, LoadError> {
        let mut refusals = Vec::new();
        for extension in self.before.iter().filter(|entry| entry.is("EXTENSION")).filter_map(|entry| entry.tag.clone()) {
            let (there, there_to_make, may): (bool, bool, bool) = sqlx::query_as(
                "select exists (select from pg_catalog.pg_extension where extname = $1), count(*) > 0,
                        coalesce(bool_or(trusted or not superuser), false) or current_setting('is_superuser')::boolean
                 from pg_catalog.pg_available_extension_versions where name = $1",
            )
            .bind(&extension)
            .fetch_one(pool)
            .await
            .map_err(LoadError::at("look at the server's extensions"))?;
            let (why, help) = match (there, there_to_make, may) {
                (true, ..) | (_, true, true) => continue,
                (_, false, _) => {
                    ("does not have", "install the package that brings it (postgresql-contrib for the server's own)".into())
                }
                _ => ("lets superusers make only", format!("have one run `create extension {extension}` in this database")),
            };
            refusals.push(Refusal::Extension { extension, why: why.into(), help });
        }
        Ok(refusals)
    }

    /// Everything that rows need, in one transaction after the other, in order.
    pub(super) async fn create_tables(&self, job: &Job<'_>) -> Result<(), LoadError> {
        let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
        for (done, entry) in self.before.iter().enumerate() {
            make(&mut conn, entry).await?;
            job.watch.progress(done as u64 + 1, self.before.len() as u64, "definitions");
        }
        Ok(())
    }

    /// Indexes, primary keys and unique constraints.
    pub(super) fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// Foreign keys, then triggers and what else comes last. A key is first added without looking at rows, under a short lock,
    /// and validated afterwards, so that those of several tables are validated at once. Returns what had to be left out, or unvalidated.
    pub(super) async fn create_foreign_keys(&self, job: &Job<'_>) -> Result<Vec<String>, LoadError> {
        let selection = &job.options.selection;
        let (kept, left_out): (Vec<_>, Vec<_>) = self.foreign_keys.iter().partition(|entry| {
            let loaded = |table: &str| selection.has_table(table) || !job.opened.manifest.tables.contains_key(table);
            !loaded(&table_of(entry)) || loaded(&referenced(entry))
        });
        let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
        for entry in &kept {
            let definition = entry.definition.as_deref().unwrap_or_default().trim_end().trim_end_matches(';');
            let made = ledger::once(&mut conn, &name(entry), &format!("{definition} not valid")).await;
            made.map_err(LoadError::at(format!("add {}", name(entry))))?;
        }
        drop(conn);
        let mut tables: Vec<(String, Vec<&TocEntry>)> = Vec::new();
        for entry in &kept {
            match tables.iter_mut().find(|(table, _)| *table == table_of(entry)) {
                Some((_, entries)) => entries.push(entry),
                None => tables.push((table_of(entry), vec![entry])),
            }
        }
        // The lock of a validation excludes a second one on its table.
        let validating = stream::iter(tables).map(|(_, entries)| validate(job, entries));
        let unkept: Vec<Vec<String>> = validating.buffer_unordered(job.options.jobs.max(1)).try_collect().await?;
        let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
        for entry in &self.after {
            make(&mut conn, entry).await?;
        }
        Ok(left_out.into_iter().map(name).chain(unkept.into_iter().flatten()).collect())
    }
}

/// For example `INDEX events_type_idx`.
pub(super) fn kind_and_name(entry: &TocEntry) -> String {
    format!("{} {}", entry.desc.as_deref().unwrap_or_default(), entry.tag.as_deref().unwrap_or_default())
}

/// Fetches a schema object, whose digest is its name.
pub(super) async fn schema_object(source: &Source, manifest: &Manifest) -> Result<Bytes, LoadError> {
    Ok(source.small_chunk(&manifest.object(&manifest.schema.sha256)).await?)
}

/// Frozen rows are visible to all, so both sides of a foreign key are read in order out of their indexes. The planner takes a hash
/// of the one table for a little cheaper, which took twice as long where it fitted into memory.
const MERGE: &str = "set local enable_hashjoin = off; ";

/// Validates the foreign keys of one table. Returns those that rows of a part of the snapshot do not keep, since what they point at is
/// in another part: these hold for what is written from now on only.
async fn validate(job: &Job<'_>, entries: Vec<&TocEntry>) -> Result<Vec<String>, LoadError> {
    let plan = if job.options.fast { MERGE } else { "" };
    let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
    memory(&mut conn, job.options.jobs).await.map_err(LoadError::at("set the memory of a validation"))?;
    let mut unkept = Vec::new();
    for entry in entries {
        // The tag of a constraint is its table and its name.
        let tag = entry.tag.as_deref().unwrap_or_default();
        let (table, constraint) = tag.split_once(' ').unwrap_or((tag, tag));
        let schema = entry.namespace.as_deref().unwrap_or(PUBLIC);
        let sql = format!("{plan}alter table {}.{} validate constraint {}", quote(schema), quote(table), quote(constraint));
        match ledger::once(&mut conn, &format!("{} validated", name(entry)), &sql).await {
            Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() && job.is_part() => {
                job.watch
                    .note(&format!("{constraint} is not validated: what some rows point at is in another part of the snapshot"));
                unkept.push(name(entry));
            }
            done => done.map_err(LoadError::at(format!("validate {}", name(entry))))?,
        }
    }
    Ok(unkept)
}

pub(super) async fn make(conn: &mut PgConnection, entry: &TocEntry) -> Result<(), LoadError> {
    let sql = entry.definition.as_deref().unwrap_or_default();
    ledger::once(conn, &name(entry), sql).await.map_err(LoadError::at(format!("create {}", name(entry))))
}

/// For example `12 INDEX events_type_idx`; the number tells overloaded functions apart.
pub(super) fn name(entry: &TocEntry) -> String {
    format!("{} {}", entry.dump_id, kind_and_name(entry))
}

/// The table that an index or a constraint is on, as [`crate::columns::TableShape::name`] spells it.
pub(super) fn table_of(entry: &TocEntry) -> String {
    let definition = entry.definition.as_deref().unwrap_or_default();
    if entry.is("INDEX") {
        return named(after(definition, " ON ONLY ").or_else(|| after(definition, " ON ")).unwrap_or_default());
    }
    let table = entry.tag.as_deref().and_then(|tag| tag.split(' ').next()).unwrap_or_default();
    match entry.namespace.as_deref() {
        None | Some(PUBLIC) => table.to_owned(),
        Some(schema) => format!("{schema}.{table}"),
    }
}

/// The table that a foreign key points to.
fn referenced(entry: &TocEntry) -> String {
    named(after(entry.definition.as_deref().unwrap_or_default(), " REFERENCES ").unwrap_or_default())
}

/// A qualified name of a definition as tables are named here.
fn named(text: &str) -> String {
    text.strip_prefix("public.").unwrap_or(text).replace('"', "")
}

/// The name behind a marker.
fn after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let rest = &text[text.find(marker)? + marker.len()..];
    rest.split(|c: char| c.is_whitespace() || c == '(').next()
}
