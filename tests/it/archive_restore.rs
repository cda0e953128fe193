//! The full archive, taken apart and restored with stock `tar`, `pg_restore` and `psql` in every way that users restore.
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use snapshot::archive::{ArchiveFile, Layout, Segment};
use snapshot::schema::dump_schema;
use snapshot::toc::{self, DataFile, Toc};
use sqlx::{Connection, PgConnection, PgPool};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support;

/// Tables, columns and order as in a Secondlayer database; `index` is a reserved word on purpose.
const TABLES: [(&str, &[&str], &str, &str); 3] = [
    ("blocks", &["height", "hash", "parent_hash", "canonical", "created_at"], "height", "height"),
    ("transactions", &["tx_id", "block_height", "tx_index", "function_name"], "block_height", "block_height, tx_index, tx_id"),
    ("events", &["id", "tx_id", "block_height", "index", "data"], "block_height", "block_height, \"index\", tx_id, id"),
];
const BLOCKS: u32 = 400;
const BLOCKS_PER_CHUNK: u32 = 20;
const CREATED_AT: u64 = 1_735_689_600;

/// Everything a schema can hold that a restore could lose, and some things that a snapshot must not carry.
const SOURCE: &str = r#"
create extension pg_trgm;
create function notify_block() returns trigger language plpgsql as $$ begin perform pg_notify('block', new.height::text); return new; end $$;
create table blocks (height int primary key, hash text not null, parent_hash text not null, canonical bool not null default true, created_at timestamptz not null default now());
create table transactions (tx_id text primary key, block_height int not null references blocks (height) on delete cascade, tx_index int not null check (tx_index >= 0), function_name text);
create table events (id uuid primary key default gen_random_uuid(), tx_id text not null references transactions (tx_id) on delete cascade, block_height int not null references blocks (height), "index" int not null, data jsonb not null);
create table tenants (id serial primary key, email text unique);
create view tips as select max(height) as height from blocks;
create index blocks_canonical_height_idx on blocks (canonical, height);
create index transactions_function_idx on transactions using gin (function_name gin_trgm_ops);
create index events_block_height_idx on events (block_height);
create index events_data_idx on events using gin (data);
create trigger notify after insert on blocks for each row execute function notify_block();
create policy everyone on tenants to public using (true);
alter table tenants enable row level security;
comment on table blocks is 'canary comment';
insert into tenants (email) values ('canary@example.com');
create schema view_0123_moves; create table view_0123_moves.moves (id int);
insert into blocks select h, 'hash ' || h, 'hash ' || h - 1, true, timestamptz '2026-01-01 00:00:00.123456+00' + h * interval '1 s' from generate_series(1, 400) h;
insert into transactions select 'tx ' || h || ' ' || t, h, t, case t when 0 then null when 1 then E'tab\t new\n line \\. end' else 'grüße-' || h end from generate_series(1, 400) h, generate_series(0, 2) t;
insert into events (tx_id, block_height, "index", data) select tx_id, block_height, e, jsonb_build_object('memo', E'a\\b\t"' || e, 'n', e) from transactions, generate_series(0, 3) e;
"#;

/// A source database, and its archive as extracted by stock tar.
struct Extracted {
    source: support::TestDatabase,
    pool: PgPool,
    folder: TempDir,
}

impl Extracted {
    async fn new() -> Self {
        let source = support::database().await;
        let pool = source.pool().await;
        sqlx::raw_sql(SOURCE).execute(&pool).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("snapshot.tar.zst");
        std::fs::write(&archive, archive_of(source.url(), &pool).await).unwrap();
        let folder_name = folder.path().to_str().unwrap();
        run("tar", &["--zstd", "-xf", archive.to_str().unwrap(), "-C", folder_name]).await;
        Self { source, pool, folder }
    }

    fn snapshot(&self) -> String {
        self.folder.path().join("snapshot").to_str().unwrap().to_owned()
    }

    fn change_toc(&self, change: impl FnOnce(&mut Toc)) {
        let path = Path::new(&self.snapshot()).join("toc.dat");
        let mut contents = toc::read(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut contents);
        std::fs::write(&path, toc::write(&contents)).unwrap();
    }

    /// Restores into an empty database with one `pg_restore` per list of options, then compares all there is.
    async fn restores_with(&self, steps: &[&[&str]]) {
        let target = support::database().await;
        let snapshot = self.snapshot();
        for options in steps {
            let arguments = [options, &["-d", target.url(), &snapshot][..]].concat();
            let said = run(&pg("pg_restore"), &arguments).await;
            assert_eq!(said, "", "pg_restore {options:?} must have nothing to say");
        }
        self.equals(&target).await;
    }

    async fn equals(&self, target: &support::TestDatabase) {
        let restored = target.pool().await;
        for (table, columns, _, order) in TABLES {
            let query = format!("copy (select {} from {table} order by {order}) to stdout", list(columns));
            let (expected, found) = (copy_out(&self.pool, &query).await, copy_out(&restored, &query).await);
            assert!(!expected.is_empty());
            assert!(expected == found, "rows of {table} differ: {} bytes, {} restored", expected.len(), found.len());
        }
        assert_eq!(objects(&self.pool).await, objects(&restored).await);
        let tenants: i64 = sqlx::query_scalar("select count(*) from tenants").fetch_one(&restored).await.unwrap();
        assert_eq!(tenants, 0, "no tenant's row is restored");
    }
}

/// Cuts every table into chunks and splices the archive.
async fn archive_of(url: &str, pool: &PgPool) -> Vec<u8> {
    let mut data_files = Vec::new();
    let mut archive_files = Vec::new();
    let mut objects = Vec::new();
    for (table, columns, height, order) in TABLES {
        for from in (1..=BLOCKS).step_by(BLOCKS_PER_CHUNK as usize) {
            let to = from + BLOCKS_PER_CHUNK - 1;
            let raw = copy_out(
                pool,
                &format!(
                    "copy (select {} from {table} where {height} between {from} and {to} order by {order}) to stdout",
                    list(columns)
                ),
            )
            .await;
            let object = zstd::encode_all(raw.as_slice(), 3).unwrap();
            let name = format!("{table}-{from:010}-{to:010}.dat");
            let columns = columns.iter().map(ToString::to_string).collect();
            data_files.push(DataFile { table: table.into(), columns, name: name.clone() });
            let sha256 = Sha256::digest(&object).into();
            archive_files.push(ArchiveFile { name, sha256, bytes: object.len() as u64, raw_bytes: raw.len() as u64 });
            objects.push(object);
        }
    }
    let schema = dump_schema(Path::new(&pg("pg_dump")), url).await.unwrap();
    let toc = toc::build(&schema, &data_files, CREATED_AT).unwrap();
    let layout = Layout::new(&toc.bytes, &toc.gates, &archive_files, CREATED_AT).unwrap();
    let mut objects = objects.into_iter();
    let mut archive = Vec::new();
    for segment in layout.segments() {
        match segment {
            Segment::Glue(frame) => archive.extend_from_slice(frame),
            Segment::Chunk { .. } => archive.extend(objects.next().unwrap()),
        }
    }
    assert_eq!(archive.len() as u64, layout.len());
    archive
}

fn list(columns: &[&str]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

async fn copy_out(pool: &PgPool, query: &str) -> Vec<u8> {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("set timezone = 'UTC'").execute(&mut *connection).await.unwrap();
    let parts: Vec<_> = connection.copy_out_raw(query).await.unwrap().try_collect().await.unwrap();
    parts.concat()
}

/// Definitions of indexes, constraints (with whether they were checked), triggers, columns, views and functions of `public`.
async fn objects(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select indexdef from pg_indexes where schemaname = 'public' \
         union all select conrelid::regclass || ' ' || pg_get_constraintdef(oid) || convalidated from pg_constraint where connamespace = 'public'::regnamespace \
         union all select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal \
         union all select concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable) from information_schema.columns where table_schema = 'public' \
         union all select viewname || definition from pg_views where schemaname = 'public' \
         union all select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace \
         union all select extname::text from pg_extension \
         order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn pg(program: &str) -> String {
    support::pg_bin().join(program).to_str().unwrap().to_owned()
}

/// Runs a program that must succeed; what it said on stderr.
async fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[tokio::test]
async fn stock_pg_restore_takes_the_archive_in_every_way() {
    let extracted = Extracted::new().await;
    extracted.restores_with(&[&[]]).await;
    extracted.restores_with(&[&["-j8"]]).await;
    extracted.restores_with(&[&["--single-transaction"]]).await;
    extracted.restores_with(&[&["--section=pre-data"], &["--section=data"], &["--section=post-data"]]).await;
    extracted.restores_with(&[&["--section=pre-data"], &["-j4", "--section=data"], &["-j4", "--section=post-data"]]).await;
    extracted.restores_with(&[&["-j8", "--exit-on-error"]]).await;
}

#[tokio::test]
async fn script_output_of_pg_restore_goes_through_psql() {
    let extracted = Extracted::new().await;
    let script = extracted.folder.path().join("script.sql").to_str().unwrap().to_owned();
    assert_eq!(run(&pg("pg_restore"), &["-f", &script, &extracted.snapshot()]).await, "");
    let target = support::database().await;
    let said =
        run(&pg("psql"), &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", target.url(), "-f", &script]).await;
    assert_eq!(said, "");
    extracted.equals(&target).await;
}

/// Makes `toc.dat` one that old clients would truncate for: clients from 14.8 and 15.3 on spare tables whose name is quoted
/// without need.
fn unquote_tables(contents: &mut Toc) {
    for copy in contents.entries.iter_mut().filter_map(|entry| entry.copy_statement.as_mut()) {
        for (table, ..) in TABLES {
            *copy = copy.replace(&format!("COPY public.\"{table}\""), &format!("COPY public.{table}"));
        }
    }
}

#[tokio::test]
async fn gates_keep_all_rows_where_a_parallel_restore_truncates() {
    let extracted = Extracted::new().await;
    extracted.change_toc(unquote_tables);
    for _ in 0..3 {
        extracted.restores_with(&[&["-j8"]]).await;
    }
}

/// Why gates exist: without them the entry registered for a table, its last one, truncates it. Here that is the smallest chunk
/// of all, which two workers reach after all others but one are committed, whatever their timing.
#[tokio::test]
async fn without_gates_a_parallel_restore_would_lose_rows_in_silence() {
    let extracted = Extracted::new().await;
    extracted.change_toc(|contents| {
        unquote_tables(contents);
        contents.entries.retain(|entry| !entry.file_name.as_deref().is_some_and(|name| name.ends_with("-gate.dat")));
        for entry in contents.entries.iter_mut().filter(|entry| entry.has_data) {
            entry.dependencies.remove(0);
        }
        contents.entries.sort_by_key(|entry| (entry.section as u8, if entry.has_data { -entry.dump_id } else { 0 }));
    });
    let target = support::database().await;
    let arguments = ["-j2", "--section=pre-data", "--section=data", "-d", target.url(), &extracted.snapshot()];
    run(&pg("pg_restore"), &arguments).await;
    let count: i64 = sqlx::query_scalar("select count(*) from blocks").fetch_one(&target.pool().await).await.unwrap();
    assert!(count < i64::from(BLOCKS), "all {count} blocks are there: gates are no longer needed");
}

#[tokio::test]
async fn the_archive_of_a_restored_database_is_the_same_to_the_byte() {
    let extracted = Extracted::new().await;
    let first = archive_of(extracted.source.url(), &extracted.pool).await;
    let target = support::database().await;
    run(&pg("pg_restore"), &["-j8", "-d", target.url(), &extracted.snapshot()]).await;
    // A policy is a right, and so not in the archive; it is the only difference between the two databases.
    assert!(first == archive_of(target.url(), &target.pool().await).await, "the archives differ");
}

#[tokio::test]
async fn the_archive_carries_no_rights_comments_or_foreign_schemas() {
    let extracted = Extracted::new().await;
    let contents = std::fs::read(Path::new(&extracted.snapshot()).join("toc.dat")).unwrap();
    let text = String::from_utf8_lossy(&contents);
    for canary in ["canary", "view_", "POLICY", "ROW LEVEL", "CREATE SCHEMA", "GRANT", "OWNER", "DATABASE"] {
        assert!(!text.contains(canary), "{canary} is in toc.dat");
    }
    assert!(!text.contains(extracted.source.name()), "the database's name is in toc.dat");
}

#[tokio::test]
async fn a_real_directory_toc_is_written_back_byte_for_byte() {
    let source = support::database().await;
    sqlx::raw_sql(SOURCE).execute(&source.pool().await).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    run(&pg("pg_dump"), &["-Fd", "-Z0", "-f", dump.to_str().unwrap(), "-d", source.url()]).await;
    let bytes = std::fs::read(dump.join("toc.dat")).unwrap();
    let contents = toc::read(&bytes).unwrap();
    let written = toc::write(&contents);
    let minor_version = bytes[6];
    if minor_version == 14 {
        assert!(written == bytes, "the bytes differ");
    } else {
        // Newer clients write newer versions; ours says the same in 1.14.
        assert_eq!(toc::read(&written).unwrap(), contents);
    }
}

#[tokio::test]
async fn the_schema_of_a_genuine_database_holds_every_public_table_and_no_view_schema() {
    let Some(data) = support::shared_data() else { return };
    let source = support::database().await;
    support::psql_file(source.url(), &data.join("secondlayer-feb-epoch3.sql.gz")).await;
    let entries = dump_schema(Path::new(&pg("pg_dump")), source.url()).await.unwrap();
    let mut found: Vec<_> = entries.iter().filter(|entry| entry.is("TABLE")).filter_map(|entry| entry.tag.clone()).collect();
    found.sort_unstable();
    let mut connection = PgConnection::connect(source.url()).await.unwrap();
    let expected: Vec<String> =
        sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public' order by tablename collate \"C\"")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(found, expected);
    for desc in ["FUNCTION", "CONSTRAINT", "INDEX", "FK CONSTRAINT", "TRIGGER"] {
        assert!(entries.iter().any(|entry| entry.is(desc)), "no {desc}");
    }
    let all = format!("{entries:?}");
    assert!(!all.contains("view_0"), "an object of a view schema is in the schema");
    assert!(entries.iter().all(|entry| !entry.has_data && entry.owner.as_deref() == Some("")));
}

#[tokio::test]
async fn an_unusable_pg_dump_is_named_with_what_to_do() {
    let source = support::database().await;
    let refused = async |program: &Path| dump_schema(program, source.url()).await.unwrap_err().to_string();
    let missing = PathBuf::from("/nonexistent/pg_dump");
    assert_eq!(refused(&missing).await, "cannot start /nonexistent/pg_dump: install the postgresql client programs");
    let psql = pg("psql");
    assert_eq!(refused(Path::new(&psql)).await, format!("{psql} does not say which postgresql version it is: expected pg_dump"));
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("pg_dump");
    std::fs::write(&old, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n").unwrap();
    run("chmod", &["+x", old.to_str().unwrap()]).await;
    let message = refused(&old).await;
    assert!(message.contains("is of version 9 and cannot dump a server of version"), "{message}");
    let denied = dump_schema(Path::new(&pg("pg_dump")), &source.url().replace(source.name(), "no_such_database")).await;
    assert!(denied.is_err());
}

#[tokio::test]
async fn what_pg_dump_complained_about_is_in_the_error() {
    let source = support::database().await;
    let pool = source.pool().await;
    sqlx::raw_sql("drop schema public").execute(&pool).await.unwrap();
    let error = dump_schema(Path::new(&pg("pg_dump")), source.url()).await.unwrap_err().to_string();
    assert!(error.contains("no matching schemas were found"), "{error}");
}
