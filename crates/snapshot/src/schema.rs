//! The schema that a snapshot carries: the definitions of everything in `public`, as stock `pg_dump` writes them.
//!
//! Not data, and not rights: owners, grants, policies, comments, tablespaces and what lies in other schemas stay behind.
//!
//! Invariant: equal schemas give equal entries, whatever database they are in: numbered in restore order, no object OID.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};

use sqlx::{Connection, PgConnection};

use crate::client::{self, ClientError};
use crate::toc::{self, Section, TocEntry, TocError};

/// Extensions that the original's migrations install. Others (our own hstore and pgcrypto among them) are never part of a snapshot.
const EXTENSIONS: &[&str] = &["pg_trgm"];

/// Only `public`, only definitions. The archive formats keep owners and tablespaces all the same; [`portable`] takes them out.
const ARGUMENTS: &[&str] = &[
    "--format=custom",
    "--schema-only",
    "--schema=public",
    "--encoding=UTF8",
    "--no-owner",
    "--no-privileges",
    "--no-comments",
    "--no-subscriptions",
    "--no-publications",
    "--no-security-labels",
    "--no-tablespaces",
    // A migration in progress holds its locks: say so after a while instead of waiting for ever.
    "--lock-wait-timeout=60s",
];

/// Kinds of entries that stay behind even if a `pg_dump` writes them: they name the database, roles, servers or replication
/// peers, or, like the schema `public`, they are in the target already.
const LEFT_OUT: &[&str] = &[
    "ACL",
    "COMMENT",
    "DATABASE",
    "DATABASE PROPERTIES",
    "DEFAULT ACL",
    "FOREIGN TABLE",
    "POLICY",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "SCHEMA",
    "SECURITY LABEL",
    "STATISTICS DATA",
];

/// Why the schema cannot be dumped.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database URL is unusable.
    #[error("cannot address the database for pg_dump")]
    Url(#[from] ClientError),
    /// The database did not answer a question about itself.
    #[error("cannot read server version and extensions from the database")]
    Database(#[from] sqlx::Error),
    /// The program is missing or not executable.
    #[error("cannot start {program}: install the postgresql client programs")]
    Start {
        /// Path of the program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The program is not `pg_dump`.
    #[error("{program} does not say which postgresql version it is: expected pg_dump")]
    NotPgDump {
        /// Path of the program.
        program: PathBuf,
    },
    /// `pg_dump` refuses servers newer than itself.
    #[error(
        "{program} is of version {client} and cannot dump a server of version {server}: install the postgresql {server} client programs"
    )]
    ClientTooOld {
        /// Path of the program.
        program: PathBuf,
        /// Its major version.
        client: u32,
        /// The server's major version.
        server: u32,
    },
    /// An extension that restored tables need would be made in a schema that they do not have.
    #[error(
        "extension {extension} is in schema {schema}, which a snapshot does not carry: run alter extension {extension} set schema public"
    )]
    ExtensionSchema {
        /// Name of the extension.
        extension: String,
        /// Schema that it is in.
        schema: String,
    },
    /// `pg_dump` gave up.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Path of the program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// `pg_dump` wrote something else than an archive.
    #[error("cannot read what pg_dump wrote")]
    Output(#[from] TocError),
}

/// Entries for all definitions of schema `public` in the database of `database_url`, in restore order.
///
/// # Errors
/// [`SchemaError`]; a database that cannot be reached, a `pg_dump` that is missing, older than the server, or fails.
pub async fn dump_schema(pg_dump: &Path, database_url: &str) -> Result<Vec<TocEntry>, SchemaError> {
    let mut database = PgConnection::connect(database_url).await?;
    let server = server_version(&mut database).await?.cast_unsigned() / 10_000;
    let installed = extensions(&mut database, EXTENSIONS).await?;
    database.close().await?;
    let client = client_version(pg_dump).await?;
    if client < server {
        return Err(SchemaError::ClientTooOld { program: pg_dump.to_owned(), client, server });
    }
    let mut command = client::command(pg_dump, database_url)?;
    command.args(ARGUMENTS);
    for (extension, schema) in installed {
        if schema != "public" {
            return Err(SchemaError::ExtensionSchema { extension, schema });
        }
        command.arg(format!("--extension={extension}"));
    }
    let output = run(pg_dump, &mut command).await?;
    Ok(portable(toc::read(&output.stdout)?.entries))
}

/// Entries for the definitions of every schema of the database but `without`, as the exported snapshot sees them, in restore order. Extensions
/// that live in a schema that is left out are left out with it.
///
/// # Errors
/// [`SchemaError`].
pub async fn dump_everything(
    pg_dump: &Path,
    database_url: &str,
    (snapshot, without): (&str, &[&str]),
) -> Result<Vec<TocEntry>, SchemaError> {
    let mut database = PgConnection::connect(database_url).await?;
    let server = server_version(&mut database).await?.cast_unsigned() / 10_000;
    let extensions = extensions_outside(&mut database, without).await?;
    database.close().await?;
    let client = client_version(pg_dump).await?;
    if client < server {
        return Err(SchemaError::ClientTooOld { program: pg_dump.to_owned(), client, server });
    }
    let mut command = client::command(pg_dump, database_url)?;
    command.args(ARGUMENTS.iter().filter(|argument| **argument != "--schema=public"));
    command.arg(format!("--snapshot={snapshot}"));
    command.args(without.iter().map(|schema| format!("--exclude-schema={schema}")));
    let output = run(pg_dump, &mut command).await?;
    let made = |entry: &TocEntry| !entry.is("EXTENSION") || extensions.iter().any(|name| Some(name) == entry.tag.as_ref());
    let entries = toc::read(&output.stdout)?.entries;
    Ok(numbered(entries.into_iter().filter(|entry| belongs_to_all(entry) && made(entry)).collect()))
}

async fn extensions_outside(database: &mut PgConnection, without: &[&str]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select extname::text from pg_extension join pg_namespace on pg_namespace.oid = extnamespace
         where not nspname = any($1) and extname <> 'plpgsql'",
    )
    .bind(without)
    .fetch_all(database)
    .await
}

async fn server_version(database: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("select current_setting('server_version_num')::int4").fetch_one(database).await
}

/// Which of `names` are installed, and in which schema.
async fn extensions(database: &mut PgConnection, names: &[&str]) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as(
        "select extname::text, nspname::text from pg_extension join pg_namespace on pg_namespace.oid = extnamespace \
         where extname = any($1) order by extname",
    )
    .bind(names)
    .fetch_all(database)
    .await
}

async fn client_version(pg_dump: &Path) -> Result<u32, SchemaError> {
    let output = run(pg_dump, tokio::process::Command::new(pg_dump).arg("--version").kill_on_drop(true)).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    major(&text).ok_or_else(|| SchemaError::NotPgDump { program: pg_dump.to_owned() })
}

/// The major version in `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `… 18beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.strip_prefix("pg_dump (PostgreSQL) ")?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

async fn run(program: &Path, command: &mut tokio::process::Command) -> Result<Output, SchemaError> {
    let output = command.stdin(std::process::Stdio::null()).output().await;
    let output = output.map_err(|source| SchemaError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SchemaError::Failed { program: program.to_owned(), status: output.status, stderr })
}

/// What of `entries` belongs to a snapshot, freed of everything that ties it to one database.
fn portable(entries: Vec<TocEntry>) -> Vec<TocEntry> {
    numbered(entries.into_iter().filter(belongs).collect())
}

fn numbered(kept: Vec<TocEntry>) -> Vec<TocEntry> {
    let numbers: HashMap<i32, i32> = kept.iter().map(|entry| entry.dump_id).zip(1..).collect();
    kept.into_iter().map(|entry| detached(entry, &numbers)).collect()
}

fn belongs(entry: &TocEntry) -> bool {
    entry.section != Section::Data && !LEFT_OUT.iter().any(|desc| entry.is(desc))
}

/// Of a whole database its other schemas are part; `public` is in the target already.
fn belongs_to_all(entry: &TocEntry) -> bool {
    belongs(entry) || (entry.is("SCHEMA") && entry.tag.as_deref() != Some("public"))
}

fn detached(entry: TocEntry, numbers: &HashMap<i32, i32>) -> TocEntry {
    // Sorted: pg_dump lists them in the order of their OIDs.
    let dependencies: BTreeSet<i32> = entry.dependencies.iter().filter_map(|id| numbers.get(id).copied()).collect();
    TocEntry {
        dump_id: numbers.get(&entry.dump_id).copied().unwrap_or_default(),
        object_oid: 0,
        owner: Some(String::new()),
        tablespace: entry.tablespace.map(|_| String::new()),
        dependencies: dependencies.into_iter().collect(),
        ..entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dump_id: i32, desc: &str, section: Section, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            catalog_oid: 1259,
            object_oid: 16_384 + dump_id.cast_unsigned(),
            tablespace: Some("fast_disk".into()),
            access_method: Some("heap".into()),
            owner: Some("admin".into()),
            dependencies: dependencies.to_vec(),
            ..TocEntry::sample(dump_id, desc, &format!("{desc} {dump_id}"), section)
        }
    }

    #[test]
    fn rights_comments_and_rows_stay_behind_and_the_rest_is_renumbered() {
        let entries = portable(vec![
            entry(1, "DATABASE", Section::PreData, &[]),
            entry(5, "SCHEMA", Section::PreData, &[]),
            entry(220, "TABLE", Section::PreData, &[5]),
            entry(3400, "ACL", Section::None, &[220]),
            entry(3401, "SEQUENCE SET", Section::Data, &[220]),
            entry(3000, "INDEX", Section::PostData, &[220]),
            entry(3100, "FK CONSTRAINT", Section::PostData, &[3000, 220, 9]),
            entry(3402, "POLICY", Section::PostData, &[220]),
        ]);
        let shape: Vec<_> = entries.iter().map(|e| (e.dump_id, e.desc.as_deref(), e.dependencies.as_slice())).collect();
        assert_eq!(shape, [(1, Some("TABLE"), &[][..]), (2, Some("INDEX"), &[1]), (3, Some("FK CONSTRAINT"), &[1, 2])]);
    }

    #[test]
    fn nothing_ties_an_entry_to_its_database() {
        let entries = portable(vec![entry(220, "TABLE", Section::PreData, &[])]);
        let table = entries.first().expect("the table");
        assert_eq!((table.owner.as_deref(), table.tablespace.as_deref(), table.object_oid), (Some(""), Some(""), 0));
    }

    #[test]
    fn the_major_version_is_read_from_what_programs_say() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("tar (GNU tar) 1.34\n"), None);
    }
}
