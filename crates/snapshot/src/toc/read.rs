//! Reads a table of contents: custom format (`pg_dump -Fc`, versions 1.14 to 1.16) and the `toc.dat` of a directory.
//!
//! Not a reader of data: bytes behind the table of contents of a custom-format file are left alone.
//!
//! Invariant: no input panics or makes it allocate more than a small multiple of the input's own length.

use super::{Header, Section, Toc, TocEntry, TocError};

const MAGIC: &[u8] = b"PGDMP";
const CUSTOM: u8 = 1;
/// A directory's `toc.dat` calls itself tar, so that `pg_restore` can read either.
const DIRECTORY: u8 = 3;
/// From here on the header holds a compression algorithm in one byte instead of a level.
const WITH_ALGORITHM: u8 = 15;
/// From here on an entry holds the kind of its relation.
const WITH_RELATION_KIND: u8 = 16;

/// Reads the head and all entries.
///
/// Data offsets (custom format) and the relation kind (version 1.16) are skipped: nobody here needs them.
///
/// # Errors
/// [`TocError`] names the byte at which the input stops being an archive that we know.
pub fn read(bytes: &[u8]) -> Result<Toc, TocError> {
    let mut cursor = Cursor { bytes, at: 0 };
    if !bytes.starts_with(MAGIC) {
        return Err(TocError::NotAnArchive);
    }
    cursor.at = MAGIC.len();
    let layout = layout(&mut cursor)?;
    let header = header(&mut cursor, &layout)?;
    let at = cursor.at;
    let count = cursor.int()?;
    if count < 0 {
        return Err(TocError::Damaged { at, what: "the number of entries is negative" });
    }
    // Grown entry by entry: the count is only a claim until the entries are there.
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(entry(&mut cursor, &layout)?);
    }
    Ok(Toc { header, entries })
}

struct Layout {
    minor: u8,
    format: u8,
}

fn layout(cursor: &mut Cursor<'_>) -> Result<Layout, TocError> {
    let (major, minor, _revision) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    if major != 1 || !(14..=16).contains(&minor) {
        return Err(TocError::Version { major, minor });
    }
    let (int_size, offset_size, format) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    if int_size != 4 || offset_size != 8 || ![CUSTOM, DIRECTORY].contains(&format) {
        return Err(TocError::Layout { int_size, offset_size, format });
    }
    Ok(Layout { minor, format })
}

fn header(cursor: &mut Cursor<'_>, layout: &Layout) -> Result<Header, TocError> {
    let compression = if layout.minor >= WITH_ALGORITHM { i32::from(cursor.byte()?) } else { cursor.int()? };
    let mut created = [0; 7];
    for field in &mut created {
        *field = cursor.int()?;
    }
    Ok(Header {
        compression,
        created,
        database: cursor.string()?,
        server_version: cursor.string()?,
        dump_version: cursor.string()?,
    })
}

fn entry(cursor: &mut Cursor<'_>, layout: &Layout) -> Result<TocEntry, TocError> {
    let at = cursor.at;
    let dump_id = cursor.int()?;
    if dump_id <= 0 {
        return Err(TocError::Damaged { at, what: "a dump id is not positive" });
    }
    let has_data = cursor.int()? != 0;
    let catalog_oid = cursor.number()?;
    let object_oid = cursor.number()?;
    let tag = cursor.string()?;
    let desc = cursor.string()?;
    let section = section(cursor)?;
    let definition = cursor.string()?;
    let drop_statement = cursor.string()?;
    let copy_statement = cursor.string()?;
    let namespace = cursor.string()?;
    let tablespace = cursor.string()?;
    let access_method = cursor.string()?;
    if layout.minor >= WITH_RELATION_KIND {
        cursor.int()?;
    }
    let owner = cursor.string()?;
    let at = cursor.at;
    if cursor.string()?.as_deref() != Some("false") {
        return Err(TocError::Damaged { at, what: "a table with oids, which no server from 12 on has" });
    }
    let dependencies = dependencies(cursor)?;
    let file_name = extra(cursor, layout)?;
    Ok(TocEntry {
        dump_id,
        has_data,
        catalog_oid,
        object_oid,
        tag,
        desc,
        section,
        definition,
        drop_statement,
        copy_statement,
        namespace,
        tablespace,
        access_method,
        owner,
        dependencies,
        file_name,
    })
}

fn section(cursor: &mut Cursor<'_>) -> Result<Section, TocError> {
    let at = cursor.at;
    match cursor.int()? {
        1 => Ok(Section::None),
        2 => Ok(Section::PreData),
        3 => Ok(Section::Data),
        4 => Ok(Section::PostData),
        _ => Err(TocError::Damaged { at, what: "an entry is in no known section" }),
    }
}

fn dependencies(cursor: &mut Cursor<'_>) -> Result<Vec<i32>, TocError> {
    let mut found = Vec::new();
    loop {
        let at = cursor.at;
        let Some(text) = cursor.string()? else { return Ok(found) };
        found.push(text.parse().map_err(|_| TocError::Damaged { at, what: "a dependency is not a number" })?);
    }
}

/// What the format adds to each entry: a file offset (custom) or a file name (directory).
fn extra(cursor: &mut Cursor<'_>, layout: &Layout) -> Result<Option<String>, TocError> {
    if layout.format == DIRECTORY {
        return cursor.string();
    }
    let state_and_offset = 1 + 8;
    cursor.take(state_and_offset)?;
    Ok(None)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TocError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(TocError::Truncated { at: self.at })?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, TocError> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// A sign byte (0 or 1), then the absolute value in four bytes, lowest first.
    fn int(&mut self) -> Result<i32, TocError> {
        let at = self.at;
        let sign = self.byte()?;
        let size = self.take(4)?.iter().rev().fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
        let size = i32::try_from(size).map_err(|_| TocError::Damaged { at, what: "an integer is too large" })?;
        match sign {
            0 => Ok(size),
            1 if size != 0 => Ok(-size),
            _ => Err(TocError::Damaged { at, what: "an integer has no valid sign" }),
        }
    }

    /// A length, then that many bytes; a length of -1 is SQL's NULL.
    fn string(&mut self) -> Result<Option<String>, TocError> {
        let at = self.at;
        let length = self.int()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| TocError::Damaged { at, what: "a text has a negative length" })?;
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| TocError::Damaged { at, what: "a text is not UTF-8 (dump with --encoding=UTF8)" })?;
        Ok(Some(text.to_owned()))
    }

    /// An unsigned number written as text.
    fn number(&mut self) -> Result<u32, TocError> {
        let at = self.at;
        self.string()?.and_then(|text| text.parse().ok()).ok_or(TocError::Damaged { at, what: "an oid is not a number" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::write;

    fn sample() -> Toc {
        let entry = TocEntry {
            dump_id: 7,
            has_data: true,
            catalog_oid: 1259,
            object_oid: 16_400,
            tag: Some("blöcks".into()),
            desc: Some("TABLE DATA".into()),
            section: Section::Data,
            definition: Some(String::new()),
            drop_statement: Some(String::new()),
            copy_statement: Some("COPY public.blocks (height) FROM stdin;\n".into()),
            namespace: Some("public".into()),
            tablespace: None,
            access_method: None,
            owner: Some(String::new()),
            dependencies: vec![3, 4],
            file_name: Some("7.dat".into()),
        };
        let header = Header {
            compression: -1,
            created: [1, 2, 3, 4, 5, 126, 0],
            database: Some("db".into()),
            server_version: Some("15.1".into()),
            dump_version: None,
        };
        Toc { header, entries: vec![entry] }
    }

    #[test]
    fn what_is_written_reads_back_unchanged() {
        assert_eq!(read(&write(&sample())), Ok(sample()));
    }

    #[test]
    fn every_truncation_is_an_error_and_none_panics() {
        let bytes = write(&sample());
        for end in 0..bytes.len() {
            let error = read(&bytes[..end]).expect_err("a cut file must not read");
            assert!(matches!(error, TocError::NotAnArchive | TocError::Truncated { .. }), "{end}: {error}");
        }
    }

    #[test]
    fn no_single_changed_byte_panics() {
        let bytes = write(&sample());
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                let mut hostile = bytes.clone();
                hostile[at] = value;
                let _ = read(&hostile);
            }
        }
    }

    #[test]
    fn a_claimed_length_beyond_the_file_is_truncation_not_memory() {
        let mut bytes = write(&Toc { entries: vec![], ..sample() });
        let count = bytes.len() - 5;
        bytes[count..].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(read(&bytes), Err(TocError::Truncated { at: bytes.len() }));
    }

    #[test]
    fn foreign_versions_and_layouts_are_named() {
        let mut bytes = write(&sample());
        bytes[6] = 17;
        assert_eq!(read(&bytes), Err(TocError::Version { major: 1, minor: 17 }));
        bytes[6] = 14;
        bytes[8] = 8;
        assert_eq!(read(&bytes), Err(TocError::Layout { int_size: 8, offset_size: 8, format: 3 }));
        assert_eq!(read(b"SQLite format 3"), Err(TocError::NotAnArchive));
    }

    /// Rewrites a 1.14 directory file as what newer clients write: an algorithm byte (1.15) and a relation kind (1.16).
    fn newer(minor: u8) -> Vec<u8> {
        let old = write(&sample());
        let header_end = 5 + 3 + 3;
        let mut new = [&old[..6], &[minor], &old[7..header_end], &[2], &old[header_end + 5..]].concat();
        if minor >= WITH_RELATION_KIND {
            let tail = [&[1, 1, 0, 0, 0, 1, 1, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 5, 0, 0, 0][..], b"false"].concat();
            let owner = new.windows(tail.len()).position(|window| window == tail).expect("owner of the only entry") + 10;
            new.splice(owner..owner, [0, u8::try_from('r').expect("ascii"), 0, 0, 0]);
        }
        new
    }

    #[test]
    fn versions_1_15_and_1_16_give_the_same_entries() {
        for minor in [15, 16] {
            let toc = read(&newer(minor)).expect("readable");
            assert_eq!(toc.header.compression, 2, "version 1.{minor}");
            assert_eq!(toc.entries, sample().entries, "version 1.{minor}");
        }
    }
}
