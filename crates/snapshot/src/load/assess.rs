//! Whether a database can take a snapshot, found out before anything is written to it.

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use sqlx::PgPool;

use super::ledger::{self, State};
use super::{Job, LoadError, Options, Part, Refusal};
use crate::fetch::{FetchError, Opened, Size};
use crate::manifest::Manifest;

/// Oldest server that the schema of a snapshot is meant for.
const OLDEST: u32 = 14;
/// Tables with their indexes, for each byte of COPY text, in percent (measured: 106 to 108).
const DATABASE_PERCENT: u64 = 115;
/// The largest index build spills about this much of the text, in percent.
const SORT_PERCENT: u64 = 10;
/// Questions about objects under way at once.
const ASKED_AT_ONCE: usize = 16;

/// Disk that a restore takes on the server, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// Tables and indexes.
    pub database_bytes: u64,
    /// WAL, at most what the server keeps between checkpoints.
    pub wal_bytes: u64,
    /// Sorting, while indexes are built.
    pub sort_bytes: u64,
}

impl Needs {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.database_bytes + self.wal_bytes + self.sort_bytes
    }
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assessment {
    /// Version of the server.
    pub server_version: String,
    /// Its `wal_level`.
    pub wal_level: String,
    /// Disk needed on the server.
    pub needs: Needs,
    /// Free disk there, where it can be known.
    pub free_bytes: Option<u64>,
    /// Chunks of the selection that an earlier run has loaded.
    pub chunks_before: usize,
    /// Why it cannot be done; empty if it can.
    pub refusals: Vec<Refusal>,
}

#[derive(sqlx::FromRow)]
struct Facts {
    version: String,
    version_num: i32,
    encoding: String,
    wal_level: String,
    max_wal_bytes: i64,
    role: String,
    database: String,
    may_create_schema: bool,
    may_create_table: bool,
    is_here: bool,
    data_directory: Option<String>,
}

/// Looks at the database and writes nothing.
///
/// # Errors
/// [`LoadError::Database`], [`LoadError::Selection`]; what speaks against the restore is in the result.
pub async fn assess(pool: &PgPool, opened: &Opened, options: &Options) -> Result<Assessment, LoadError> {
    let at = || LoadError::at("look at the database");
    let parts = options.selection.parts(&opened.manifest)?;
    let facts = facts(pool).await.map_err(at())?;
    let held = ledger::held(pool).await.map_err(at())?;
    let before = if held.is_some() { ledger::loaded(pool).await.map_err(at())? } else { Default::default() };
    let left = parts.iter().filter(|part| !before.contains(&ledger::Loaded::of(&part.chunk)));
    let left_bytes: u64 = left.clone().map(|part| part.chunk.raw_bytes).sum();
    let mut refusals = Vec::new();
    server(&facts, &opened.manifest.producer.postgres, &mut refusals);
    rights(&facts, &mut refusals);
    match &held {
        // A range that an update has not replaced yet still holds its old rows.
        Some(held) if held.is(opened, &options.selection) && held.state != State::Updating => {}
        Some(held) => refusals.push(Refusal::OtherRestore {
            held: format!("{}{}", held.manifest.path(), if held.selection.is_all() { "" } else { " in part" }),
            state: held.state.to_string(),
            wanted: opened.manifest.path().to_string(),
        }),
        None => {
            refusals.extend(not_empty(pool).await.map_err(at())?);
            refusals.extend(schemas_there(pool, &opened.manifest).await.map_err(at())?);
        }
    }
    let needs = needs(left_bytes, &facts, options);
    let free_bytes = options.free_disk.or_else(|| facts.free_here(options));
    if let Some(free) = free_bytes.filter(|free| *free < needs.total()) {
        let Needs { database_bytes: database, wal_bytes: wal, sort_bytes: sort } = needs;
        refusals.push(Refusal::Disk { free, needed: needs.total(), database, wal, sort });
    }
    let chunks_before = parts.len() - left.count();
    Ok(Assessment { server_version: facts.version, wal_level: facts.wal_level, needs, free_bytes, chunks_before, refusals })
}

/// The data directory is told to superusers and members of `pg_read_all_settings` only, and is this machine's only if both ends
/// of the connection are.
async fn facts(pool: &PgPool) -> sqlx::Result<Facts> {
    sqlx::query_as(
        "select current_setting('server_version') as version, current_setting('server_version_num')::int4 as version_num,
                current_setting('server_encoding') as encoding, current_setting('wal_level') as wal_level,
                pg_size_bytes(current_setting('max_wal_size')) as max_wal_bytes,
                current_user::text as role, current_database()::text as database,
                has_database_privilege(current_database(), 'create') as may_create_schema,
                has_schema_privilege('public', 'create') as may_create_table,
                coalesce(inet_server_addr() = inet_client_addr(), true) as is_here,
                case when pg_has_role('pg_read_all_settings', 'usage') then current_setting('data_directory') end as data_directory",
    )
    .fetch_one(pool)
    .await
}

impl Facts {
    fn free_here(&self, options: &Options) -> Option<u64> {
        let directory = self.data_directory.as_deref().filter(|_| self.is_here)?;
        (options.free_at)(std::path::Path::new(directory))
    }
}

fn needs(raw_bytes: u64, facts: &Facts, options: &Options) -> Needs {
    let database_bytes = raw_bytes * DATABASE_PERCENT / 100;
    let no_wal = options.fast && facts.wal_level == "minimal";
    let wal_bytes = if no_wal { 0 } else { database_bytes.min(facts.max_wal_bytes.unsigned_abs()) };
    Needs { database_bytes, wal_bytes, sort_bytes: raw_bytes * SORT_PERCENT / 100 }
}

fn server(facts: &Facts, produced_by: &str, refusals: &mut Vec<Refusal>) {
    let found = facts.version_num.unsigned_abs() / 10_000;
    let source = produced_by.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(OLDEST);
    let needed = source.max(OLDEST);
    if found < needed {
        refusals.push(Refusal::OldServer { found, needed });
    }
    if facts.encoding != "UTF8" {
        refusals.push(Refusal::Encoding { found: facts.encoding.clone() });
    }
}

fn rights(facts: &Facts, refusals: &mut Vec<Refusal>) {
    let (role, database) = (crate::columns::quote(&facts.role), crate::columns::quote(&facts.database));
    if !facts.may_create_schema {
        let right = format!("create a schema in database {}", facts.database);
        let grant = format!("grant create on database {database} to {role}");
        refusals.push(Refusal::Rights { role: facts.role.clone(), right, grant });
    }
    if !facts.may_create_table {
        let right = "create tables in schema public".to_owned();
        let grant = format!("grant create on schema public to {role}");
        refusals.push(Refusal::Rights { role: facts.role.clone(), right, grant });
    }
}

/// Anything in `public` that no extension brought.
async fn not_empty(pool: &PgPool) -> sqlx::Result<Option<Refusal>> {
    let names: Vec<String> = sqlx::query_scalar(
        "select n from (
            select c.relname::text as n, c.oid from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r','p','v','m','S','f')
            union all select p.proname::text, p.oid from pg_proc p where p.pronamespace = 'public'::regnamespace
            union all select t.typname::text, t.oid from pg_type t where t.typnamespace = 'public'::regnamespace and t.typtype in ('e','d')
         ) o where not exists (select from pg_depend d where d.objid = o.oid and d.deptype = 'e') order by n",
    )
    .fetch_all(pool)
    .await?;
    let examples = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    Ok((!names.is_empty()).then_some(Refusal::NotEmpty { count: names.len(), examples }))
}

/// Schemas that the snapshot brings and that are there already.
async fn schemas_there(pool: &PgPool, manifest: &Manifest) -> sqlx::Result<Option<Refusal>> {
    let brought: Vec<String> = manifest.shapes.iter().filter_map(|shape| shape.schema.clone()).collect();
    let names: Vec<String> =
        sqlx::query_scalar("select nspname::text from pg_namespace where nspname = any($1) order by nspname")
            .bind(brought)
            .fetch_all(pool)
            .await?;
    Ok((!names.is_empty()).then_some(Refusal::SchemasThere { schemas: names.join(", ") }))
}

impl Job<'_> {
    /// Every object that is still needed is there in its full length; with `check_first`, also byte for byte.
    pub(super) async fn objects_are_there(&self) -> Result<(), LoadError> {
        let held = ledger::held(self.pool).await.map_err(LoadError::at("look at the database"))?;
        let before = match held {
            Some(_) => ledger::loaded(self.pool).await.map_err(LoadError::at("look at the database"))?,
            None => Default::default(),
        };
        let mut parts = self.options.selection.parts(&self.opened.manifest)?;
        parts.retain(|part| !before.contains(&ledger::Loaded::of(&part.chunk)));
        let total = parts.len() as u64;
        let at_once = if self.options.check_first { self.options.jobs } else { ASKED_AT_ONCE };
        let mut asked = stream::iter(parts).map(|part| self.is_there(part.chunk)).buffer_unordered(at_once.max(1));
        let mut done = 0;
        while asked.try_next().await?.is_some() {
            done += 1;
            self.watch.progress(done, total, "objects");
        }
        Ok(())
    }

    async fn is_there(&self, chunk: crate::chunk::Chunk) -> Result<(), LoadError> {
        let key = self.opened.manifest.object(&chunk.sha256);
        if self.options.check_first {
            self.fetch(Part { chunk, within: None }).await?;
            return Ok(());
        }
        match self.source.size(&key).await? {
            // One of unknown length is digested before its rows are loaded, as each is.
            Size::Unknown => Ok(()),
            Size::Bytes(bytes) if bytes == chunk.bytes => Ok(()),
            Size::Bytes(bytes) => Err(FetchError::Damaged {
                key: key.to_string(),
                expected: format!("{} bytes", chunk.bytes),
                found: format!("{bytes} bytes"),
            }
            .into()),
            Size::Missing => Err(FetchError::Missing { key: key.to_string() }.into()),
        }
    }
}
