//! Builds our directory's table of contents: schema entries, and many data files per table.
//!
//! Not a judge of the schema: what entries a snapshot carries is decided in `schema`.
//!
//! Invariant: no parallel restore can wipe a chunk. Within `pg_restore -j`, the data entry registered for a table that the same run
//! created does `TRUNCATE` and `COPY` in one transaction. The entry registered is the one whose *first* dependency is the table, so
//! each table has exactly one such entry, the gate, and it is empty; each chunk depends on the gate first, then on the table; each
//! post-data entry that reaches a table waits for all of its chunks.
//! (`pg_backup_archiver.c`: `buildTocEntryArrays`, `mark_create_done`, `restore_toc_entry`.)

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Datelike, Timelike};

use super::{Header, Section, Toc, TocEntry, TocError, write};

/// OID of the catalog `pg_class`, which table data entries name.
const PG_CLASS: u32 = 1259;
/// What stands where `pg_dump` names the database and versions: fixed, since they would make equal content unequal.
const PRODUCER: &str = "secondlayer-snapshots";

/// A file of rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Table in schema `public`.
    pub table: String,
    /// Columns in the order in which the file holds them.
    pub columns: Vec<String>,
    /// Name beside `toc.dat`, such as `events-0000050000-0000054999.dat`.
    pub name: String,
}

/// A finished `toc.dat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryToc {
    /// Bytes of `toc.dat`.
    pub bytes: Vec<u8>,
    /// Names of the gates' files: without rows, to be put beside the data files.
    pub gates: Vec<String>,
}

/// Builds `toc.dat` for `schema` and `files`; chunks of a table restore in the order given.
///
/// `created_at` is in unix seconds. Equal arguments give equal bytes.
///
/// # Errors
/// [`TocError::UnknownTable`] when a file's table is not in `schema`, [`TocError::DataFile`] for a file without columns or with an
/// unusable or repeated name, [`TocError::CreationTime`].
pub fn build(schema: &[TocEntry], files: &[DataFile], created_at: u64) -> Result<DirectoryToc, TocError> {
    let header = header(created_at)?;
    let tables = group(schema, files)?;
    check_names(&tables, files)?;
    let mut next_id = schema.iter().map(|entry| entry.dump_id).max().unwrap_or_default() + 1;
    let mut data = Vec::new();
    let mut chunk_ids = HashMap::new();
    for table in &tables {
        let gate = data_entry(next_id, table, vec![table.id], gate_name(table.name));
        chunk_ids.insert(table.id, Vec::new());
        for file in &table.files {
            next_id += 1;
            data.push(data_entry(next_id, table, vec![gate.dump_id, table.id], file.name.clone()));
            chunk_ids.entry(table.id).or_default().push(next_id);
        }
        data.insert(data.len() - table.files.len(), gate);
        next_id += 1;
    }
    let entries = assemble(schema, data, &chunk_ids);
    let gates = tables.iter().map(|table| gate_name(table.name)).collect();
    Ok(DirectoryToc { bytes: write(&Toc { header, entries }), gates })
}

struct Table<'a> {
    name: &'a str,
    /// Dump id of the entry that creates it.
    id: i32,
    files: Vec<&'a DataFile>,
}

/// Files by table, tables in order of first appearance.
fn group<'a>(schema: &[TocEntry], files: &'a [DataFile]) -> Result<Vec<Table<'a>>, TocError> {
    let mut tables: Vec<Table<'a>> = Vec::new();
    for file in files {
        if let Some(table) = tables.iter_mut().find(|table| table.name == file.table) {
            table.files.push(file);
            continue;
        }
        let made_by = schema.iter().find(|entry| {
            entry.is("TABLE") && entry.namespace.as_deref() == Some("public") && entry.tag.as_deref() == Some(&file.table)
        });
        let id = made_by.ok_or_else(|| TocError::UnknownTable { table: file.table.clone() })?.dump_id;
        tables.push(Table { name: &file.table, id, files: vec![file] });
    }
    Ok(tables)
}

fn check_names(tables: &[Table<'_>], files: &[DataFile]) -> Result<(), TocError> {
    let mut taken: HashSet<String> = tables.iter().map(|table| gate_name(table.name)).collect();
    taken.insert("toc.dat".to_owned());
    for file in files {
        let what = match () {
            () if file.columns.is_empty() => "it has no columns",
            () if file.name.is_empty() || file.name.contains(['/', '\\', '\0']) => "it is not a plain file name",
            () if !taken.insert(file.name.clone()) => "another file has the same name",
            () => continue,
        };
        return Err(TocError::DataFile { name: file.name.clone(), what });
    }
    Ok(())
}

fn gate_name(table: &str) -> String {
    format!("{table}-gate.dat")
}

fn data_entry(dump_id: i32, table: &Table<'_>, dependencies: Vec<i32>, file_name: String) -> TocEntry {
    // A table has one shape per snapshot, so the gate can speak with the first file's columns.
    let columns = table.files.iter().find(|file| file.name == file_name).or(table.files.first());
    let columns: Vec<String> = columns.iter().flat_map(|file| &file.columns).map(|column| quoted(column)).collect();
    TocEntry {
        dump_id,
        has_data: true,
        catalog_oid: PG_CLASS,
        object_oid: 0,
        tag: Some(table.name.to_owned()),
        desc: Some("TABLE DATA".to_owned()),
        section: Section::Data,
        definition: Some(String::new()),
        drop_statement: Some(String::new()),
        copy_statement: Some(format!("COPY public.{} ({}) FROM stdin;\n", quoted(table.name), columns.join(", "))),
        namespace: Some("public".to_owned()),
        tablespace: None,
        access_method: None,
        owner: Some(String::new()),
        dependencies,
        file_name: Some(file_name),
    }
}

/// A quoted identifier. Always quoted, so that no list of reserved words is needed; and `pg_restore` from 14.8 and 15.3 on
/// truncates nothing whose `COPY` does not begin with the table as it would spell it (`is_load_via_partition_root`).
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Pre-data, then data, then post-data that waits for the chunks of every table it reaches.
fn assemble(schema: &[TocEntry], data: Vec<TocEntry>, chunk_ids: &HashMap<i32, Vec<i32>>) -> Vec<TocEntry> {
    let by_id: HashMap<i32, &TocEntry> = schema.iter().map(|entry| (entry.dump_id, entry)).collect();
    let (post, mut entries): (Vec<TocEntry>, Vec<TocEntry>) =
        schema.iter().cloned().partition(|entry| entry.section == Section::PostData);
    entries.extend(data);
    entries.extend(post.into_iter().map(|mut entry| {
        let reached = reachable(&entry, &by_id);
        entry.dependencies.extend(reached.iter().filter_map(|id| chunk_ids.get(id)).flatten());
        entry
    }));
    entries
}

/// Dump ids of everything that `entry` needs, directly or through others: a foreign key may name the other table's primary key only.
fn reachable(entry: &TocEntry, by_id: &HashMap<i32, &TocEntry>) -> BTreeSet<i32> {
    let mut seen = BTreeSet::new();
    let mut open = entry.dependencies.clone();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(by_id.get(&id).into_iter().flat_map(|entry| &entry.dependencies));
        }
    }
    seen
}

fn header(created_at: u64) -> Result<Header, TocError> {
    let time = i64::try_from(created_at).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let time = time.ok_or(TocError::CreationTime { seconds: created_at })?;
    let fields = [time.second(), time.minute(), time.hour(), time.day(), time.month0()];
    let [second, minute, hour, day, month] = fields.map(u32::cast_signed);
    let created = [second, minute, hour, day, month, time.year() - 1900, 0];
    let producer = Some(PRODUCER.to_owned());
    Ok(Header { compression: 0, created, database: producer.clone(), server_version: producer.clone(), dump_version: producer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::read;

    fn schema_entry(dump_id: i32, desc: &str, tag: &str, section: Section, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            catalog_oid: PG_CLASS,
            definition: Some(format!("CREATE {tag};\n")),
            drop_statement: Some(String::new()),
            owner: Some(String::new()),
            dependencies: dependencies.to_vec(),
            ..TocEntry::sample(dump_id, desc, tag, section)
        }
    }

    fn schema() -> Vec<TocEntry> {
        vec![
            schema_entry(1, "TABLE", "blocks", Section::PreData, &[]),
            schema_entry(2, "TABLE", "events", Section::PreData, &[]),
            schema_entry(3, "CONSTRAINT", "blocks blocks_pkey", Section::PostData, &[1]),
            schema_entry(4, "FK CONSTRAINT", "events events_height_fkey", Section::PostData, &[2, 3]),
        ]
    }

    fn file(table: &str, name: &str) -> DataFile {
        DataFile { table: table.into(), columns: vec!["height".into(), "in\"dex".into()], name: name.into() }
    }

    fn built() -> Toc {
        let files = [file("blocks", "b1.dat"), file("events", "e1.dat"), file("blocks", "b2.dat")];
        let built = build(&schema(), &files, 1_735_689_600).expect("buildable");
        assert_eq!(built.gates, ["blocks-gate.dat", "events-gate.dat"]);
        read(&built.bytes).expect("readable")
    }

    #[test]
    fn each_table_has_one_gate_that_alone_names_it_first() {
        let toc = built();
        for (table, id) in [("blocks", 1), ("events", 2)] {
            let data: Vec<_> = toc.entries.iter().filter(|e| e.has_data && e.tag.as_deref() == Some(table)).collect();
            let (gate, chunks) = data.split_first().expect("data entries");
            assert_eq!(gate.dependencies, [id]);
            assert_eq!(gate.file_name, Some(gate_name(table)));
            assert!(!chunks.is_empty());
            for chunk in chunks {
                assert_eq!(chunk.dependencies, [gate.dump_id, id]);
            }
        }
    }

    #[test]
    fn post_data_waits_for_all_chunks_of_every_table_it_reaches() {
        let toc = built();
        let id_of = |name: &str| {
            toc.entries.iter().find(|e| e.file_name.as_deref() == Some(name)).expect("an entry for the file").dump_id
        };
        let waits =
            |tag: &str| toc.entries.iter().find(|e| e.tag.as_deref() == Some(tag)).expect("the entry").dependencies.clone();
        assert_eq!(waits("blocks blocks_pkey"), [1, id_of("b1.dat"), id_of("b2.dat")]);
        assert_eq!(waits("events events_height_fkey"), [2, 3, id_of("b1.dat"), id_of("b2.dat"), id_of("e1.dat")]);
    }

    #[test]
    fn entries_are_unique_and_in_restore_order() {
        let toc = built();
        let ids: HashSet<i32> = toc.entries.iter().map(|entry| entry.dump_id).collect();
        assert_eq!(ids.len(), toc.entries.len());
        let sections: Vec<_> = toc.entries.iter().map(|entry| entry.section as u8).collect();
        assert!(sections.is_sorted());
    }

    #[test]
    fn copy_statements_quote_every_name() {
        let copy = built().entries.iter().find_map(|entry| entry.copy_statement.clone());
        assert_eq!(copy.as_deref(), Some("COPY public.\"blocks\" (\"height\", \"in\"\"dex\") FROM stdin;\n"));
    }

    #[test]
    fn the_creation_time_is_the_argument() {
        assert_eq!(built().header.created, [0, 0, 0, 1, 0, 125, 0]);
        assert_eq!(build(&[], &[], u64::MAX), Err(TocError::CreationTime { seconds: u64::MAX }));
    }

    #[test]
    fn unusable_files_are_refused_with_their_reason() {
        let refused = |file: DataFile| build(&schema(), &[file], 0).expect_err("must be refused").to_string();
        assert_eq!(refused(file("tenants", "t.dat")), TocError::UnknownTable { table: "tenants".into() }.to_string());
        assert!(refused(file("blocks", "../b.dat")).contains("plain file name"));
        assert!(refused(file("blocks", "toc.dat")).contains("same name"));
        assert!(refused(file("blocks", "blocks-gate.dat")).contains("same name"));
        assert!(refused(DataFile { columns: vec![], ..file("blocks", "b.dat") }).contains("no columns"));
    }
}
