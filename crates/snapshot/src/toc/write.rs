//! Writes a directory's `toc.dat`, version 1.14: the newest that every client from 14 on reads.
//!
//! Not a writer of custom-format files.
//!
//! Invariant: the bytes depend on the argument only.

use super::{Section, Toc, TocEntry};

/// Magic, version 1.14.0, integers of 4 bytes, offsets of 8, format 3 (`pg_dump -Fd` calls its `toc.dat` tar).
const HEAD: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x03";

/// The bytes of `toc.dat`. Compression is written as given: it tells `pg_restore` nothing that it uses for a directory.
///
/// # Panics
/// When a text or the number of entries is 2^31 or more, which the format cannot say.
#[must_use]
pub fn write(toc: &Toc) -> Vec<u8> {
    let mut out = HEAD.to_vec();
    int(&mut out, toc.header.compression);
    for field in toc.header.created {
        int(&mut out, field);
    }
    text(&mut out, toc.header.database.as_deref());
    text(&mut out, toc.header.server_version.as_deref());
    text(&mut out, toc.header.dump_version.as_deref());
    int(&mut out, length(toc.entries.len()));
    for entry in &toc.entries {
        write_entry(&mut out, entry);
    }
    out
}

fn write_entry(out: &mut Vec<u8>, entry: &TocEntry) {
    int(out, entry.dump_id);
    int(out, i32::from(entry.has_data));
    text(out, Some(&entry.catalog_oid.to_string()));
    text(out, Some(&entry.object_oid.to_string()));
    text(out, entry.tag.as_deref());
    text(out, entry.desc.as_deref());
    int(out, section(entry.section));
    text(out, entry.definition.as_deref());
    text(out, entry.drop_statement.as_deref());
    text(out, entry.copy_statement.as_deref());
    text(out, entry.namespace.as_deref());
    text(out, entry.tablespace.as_deref());
    text(out, entry.access_method.as_deref());
    text(out, entry.owner.as_deref());
    // Where servers before 12 said whether a table had oids.
    text(out, Some("false"));
    for dependency in &entry.dependencies {
        text(out, Some(&dependency.to_string()));
    }
    text(out, None);
    text(out, Some(entry.file_name.as_deref().unwrap_or_default()));
}

fn section(section: Section) -> i32 {
    match section {
        Section::None => 1,
        Section::PreData => 2,
        Section::Data => 3,
        Section::PostData => 4,
    }
}

fn int(out: &mut Vec<u8>, value: i32) {
    out.push(u8::from(value < 0));
    out.extend_from_slice(&value.unsigned_abs().to_le_bytes());
}

fn text(out: &mut Vec<u8>, value: Option<&str>) {
    let Some(value) = value else { return int(out, -1) };
    int(out, length(value.len()));
    out.extend_from_slice(value.as_bytes());
}

fn length(count: usize) -> i32 {
    i32::try_from(count).expect("a table of contents is far smaller than 2 GiB")
}
