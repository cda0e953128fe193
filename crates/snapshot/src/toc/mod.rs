//! The table of contents of a PostgreSQL archive (`pg_dump -Fc`, `-Fd`): its model, a reader, a writer and
//! the builder of ours.
//!
//! Not a dump library: archive data, large objects and plain scripts are none of its business.
//!
//! Invariant: what [`write()`] makes, [`read()`] returns unchanged, and a `toc.dat` of version 1.14 with
//! format byte 3 that [`read()`] takes is written back byte for byte.
//!
//! Format source: `pg_backup_archiver.c` (`ReadHead`, `ReadToc`), `pg_backup_custom.c` and
//! `pg_backup_directory.c` (`_ReadExtraToc`) of PostgreSQL 14 to 18.

mod build;
mod read;
mod write;

pub use build::{DataFile, DirectoryToc, build};
pub use read::read;
pub use write::write;

/// A whole table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// What the file says about itself.
    pub header: Header,
    /// Entries in restore order.
    pub entries: Vec<TocEntry>,
}

/// The head of an archive, without its version: [`write()`] always writes 1.14, which every client from 14 on reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Compression of the data files: a zlib level up to version 1.14 (0 none, -1 default), an algorithm number from 1.15 on.
    pub compression: i32,
    /// Creation time as C's `struct tm` counts it: seconds, minutes, hours, day of the month,
    /// month from 0, years since 1900, daylight saving flag.
    pub created: [i32; 7],
    /// Name of the dumped database.
    pub database: Option<String>,
    /// Version of the server that was dumped, as text for people.
    pub server_version: Option<String>,
    /// Version of the program that dumped, as text for people.
    pub dump_version: Option<String>,
}

/// The part of a restore that an entry belongs to, as `pg_restore --section` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Entries that are in no part (comments on, and rights to, things that are).
    None,
    /// Definitions that data needs: tables, functions, sequences, defaults.
    PreData,
    /// Rows.
    Data,
    /// Definitions that want the rows first: indexes, constraints, triggers.
    PostData,
}

/// One thing to restore. `None` and `Some("")` are different bytes and mostly mean the same to `pg_restore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Number of the entry, unique in its file, from 1.
    pub dump_id: i32,
    /// Whether data belongs to the entry.
    pub has_data: bool,
    /// OID of the catalog that holds the object, 0 if none.
    pub catalog_oid: u32,
    /// OID of the object in that catalog, 0 if none.
    pub object_oid: u32,
    /// Name of the object; constraints and triggers carry `table name`.
    pub tag: Option<String>,
    /// Kind of the object, such as `TABLE` or `FK CONSTRAINT`.
    pub desc: Option<String>,
    /// Part of the restore.
    pub section: Section,
    /// SQL that makes the object.
    pub definition: Option<String>,
    /// SQL that drops it, for `--clean`.
    pub drop_statement: Option<String>,
    /// `COPY … FROM stdin` that takes the data.
    pub copy_statement: Option<String>,
    /// Schema of the object.
    pub namespace: Option<String>,
    /// Tablespace of the object.
    pub tablespace: Option<String>,
    /// Access method of a table.
    pub access_method: Option<String>,
    /// Role that owns the object.
    pub owner: Option<String>,
    /// Dump ids that must be restored before; for table data the first one is the table (`pg_restore -j` relies on it).
    pub dependencies: Vec<i32>,
    /// Name of the data file beside `toc.dat`; `None` in a custom-format file, empty if there is no data.
    pub file_name: Option<String>,
}

impl TocEntry {
    /// Whether the entry is of kind `desc`.
    #[must_use]
    pub fn is(&self, desc: &str) -> bool {
        self.desc.as_deref() == Some(desc)
    }

    /// An entry of schema `public` that says no more than this.
    #[cfg(test)]
    pub(crate) fn sample(dump_id: i32, desc: &str, tag: &str, section: Section) -> Self {
        Self {
            dump_id,
            has_data: false,
            catalog_oid: 0,
            object_oid: 0,
            tag: Some(tag.into()),
            desc: Some(desc.into()),
            section,
            definition: None,
            drop_statement: None,
            copy_statement: None,
            namespace: Some("public".into()),
            tablespace: None,
            access_method: None,
            owner: None,
            dependencies: Vec::new(),
            file_name: None,
        }
    }
}

/// Why a table of contents cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TocError {
    /// The first five bytes are not `PGDMP`.
    #[error("not a postgresql archive: the file does not start with PGDMP")]
    NotAnArchive,
    /// A version that this reader does not know.
    #[error("archive version {major}.{minor} is not supported: versions 1.14 to 1.16 (pg_dump 14 to 18) are")]
    Version {
        /// First version byte.
        major: u8,
        /// Second version byte.
        minor: u8,
    },
    /// Integer size, offset size or format byte differ from those of a custom or directory archive made by a 64-bit `pg_dump`.
    #[error(
        "archive layout (int {int_size}, offset {offset_size}, format {format}) is not supported: expected int 4, offset 8, format 1 (custom) or 3 (directory)"
    )]
    Layout {
        /// Bytes in an integer.
        int_size: u8,
        /// Bytes in a file offset.
        offset_size: u8,
        /// Format byte.
        format: u8,
    },
    /// The bytes end inside a value.
    #[error("archive is cut off at byte {at}: fetch or dump it again")]
    Truncated {
        /// Offset of the value that is not whole.
        at: usize,
    },
    /// A value that `pg_dump` never writes.
    #[error("archive is damaged at byte {at}: {what}")]
    Damaged {
        /// Offset of the value.
        at: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Data for a table that the schema does not define.
    #[error("no table {table} among the schema entries: dump the schema of the database the data came from")]
    UnknownTable {
        /// Name of the table in schema `public`.
        table: String,
    },
    /// A data file without columns, or with a name that cannot stand beside `toc.dat`.
    #[error("data file {name:?} is not usable: {what}")]
    DataFile {
        /// Name as given.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The creation time is outside of the calendar.
    #[error("creation time {seconds} is not a unix time in seconds")]
    CreationTime {
        /// The time as given.
        seconds: u64,
    },
}
