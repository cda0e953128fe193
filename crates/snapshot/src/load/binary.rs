//! COPY's binary form, made from its text form.
//!
//! Chunks hold text, which anyone can read and which stays the same from one release of PostgreSQL to the next. But a server takes
//! text in by looking at each character three times, and that is most of what it does in a restore: fed with binary rows it needs
//! a third less CPU, and making them here costs a fraction of that. Only types whose binary form is the same in every release
//! are known here; a table with any other column is loaded as text.
//!
//! Format: PostgreSQL's documentation of COPY, "Binary Format"; values as their types' receive functions read them.

use std::io;

use chrono::{NaiveDate, NaiveTime, Timelike};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::columns::TableShape;

/// Signature, flags, and the length of an extension that is not there.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Stands where the next row's number of fields would.
pub(super) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

const NULL: i32 = -1;
/// The version that `jsonb` begins with; a server refuses one that it does not know.
const JSONB_VERSION: u8 = 1;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;
/// After so many years the Gregorian calendar repeats.
const YEARS_PER_CYCLE: i64 = 400;
const DAYS_PER_CYCLE: i64 = 146_097;

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    /// `text`, `varchar`, `json`: the bytes of the text.
    Text,
    Jsonb,
    Uuid,
    /// With or without time zone: microseconds since 2000 began (in UTC).
    Timestamp,
}

impl Form {
    /// The form of a type of the schema `pg_catalog`.
    fn of(type_name: &str) -> Option<Self> {
        Some(match type_name {
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "text" | "varchar" | "json" => Self::Text,
            "jsonb" => Self::Jsonb,
            "uuid" => Self::Uuid,
            "timestamp" | "timestamptz" => Self::Timestamp,
            _ => return None,
        })
    }

    /// Appends a value, its length before it.
    fn write(self, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Bool => match text {
                b"t" => value(out, &[1]),
                b"f" => value(out, &[0]),
                _ => Err(unreadable("boolean", text)),
            },
            Self::Int2 => value(out, &number::<i16>(text)?.to_be_bytes()),
            Self::Int4 => value(out, &number::<i32>(text)?.to_be_bytes()),
            Self::Int8 => value(out, &number::<i64>(text)?.to_be_bytes()),
            Self::Text => value(out, text),
            Self::Jsonb => {
                length(out, text.len() + 1)?;
                out.push(JSONB_VERSION);
                out.extend_from_slice(text);
                Ok(())
            }
            Self::Uuid => value(out, Uuid::try_parse_ascii(text).map_err(|_| unreadable("uuid", text))?.as_bytes()),
            Self::Timestamp => {
                let microseconds = timestamp(text).ok_or_else(|| unreadable("timestamp", text))?;
                value(out, &microseconds.to_be_bytes())
            }
        }
    }
}

/// Turns rows of one table.
#[derive(Debug)]
pub(super) struct Encoder {
    forms: Vec<Form>,
    /// A value without its escapes.
    plain: Vec<u8>,
}

impl Encoder {
    /// For a table as the database has it; `None` if one of its columns has a type that is not known here.
    pub(super) async fn of(conn: &mut PgConnection, shape: &TableShape) -> sqlx::Result<Option<Self>> {
        let sql = "select a.attname::text, t.typname::text from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
                   where a.attrelid = to_regclass($1) and a.attnum > 0 and t.typnamespace = 'pg_catalog'::regnamespace";
        let found: Vec<(String, String)> = sqlx::query_as(sql).bind(shape.qualified()).fetch_all(conn).await?;
        let form = |column: &String| found.iter().find(|(name, _)| name == column).and_then(|(_, of)| Form::of(of));
        let forms: Option<Vec<Form>> = shape.columns.iter().map(form).collect();
        Ok(forms.filter(|forms| i16::try_from(forms.len()).is_ok()).map(|forms| Self { forms, plain: Vec::new() }))
    }

    /// Appends whole rows to `out`.
    pub(super) fn encode(&mut self, rows: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.reserve(rows.len() + rows.len() / 4);
        let fields = i16::try_from(self.forms.len()).map_err(io::Error::other)?.to_be_bytes();
        let (mut start, mut column, mut escaped) = (0, 0, false);
        // Neither a tab nor a line feed stands for itself within a value.
        for at in memchr::memchr3_iter(b'\t', b'\n', b'\\', rows) {
            if rows[at] == b'\\' {
                escaped = true;
                continue;
            }
            if column == 0 {
                out.extend_from_slice(&fields);
            }
            let form = *self.forms.get(column).ok_or_else(|| damaged("a row has more fields than its table has columns"))?;
            self.field(form, &rows[start..at], escaped, out)?;
            (start, column, escaped) = (at + 1, column + 1, false);
            if rows[at] == b'\n' {
                if column < self.forms.len() {
                    return Err(damaged("a row has fewer fields than its table has columns"));
                }
                column = 0;
            }
        }
        Ok(())
    }

    fn field(&mut self, form: Form, text: &[u8], escaped: bool, out: &mut Vec<u8>) -> io::Result<()> {
        if !escaped {
            return form.write(text, out);
        }
        if text == br"\N" {
            out.extend_from_slice(&NULL.to_be_bytes());
            return Ok(());
        }
        self.plain.clear();
        unescape(text, &mut self.plain)?;
        form.write(&self.plain, out)
    }
}

/// Undoes the escapes that COPY writes: `CopyAttributeOutText` of its source.
fn unescape(text: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..at]);
        plain.push(match rest.get(at + 1) {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0b,
            Some(b'\\') => b'\\',
            _ => return Err(damaged("a value has an escape that COPY does not write")),
        });
        rest = &rest[at + 2..];
    }
    plain.extend_from_slice(rest);
    Ok(())
}

fn length(out: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).map_err(|_| damaged("a value is longer than PostgreSQL can store"))?;
    out.extend_from_slice(&bytes.to_be_bytes());
    Ok(())
}

fn value(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    length(out, bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn number<T: std::str::FromStr>(text: &[u8]) -> io::Result<T> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| unreadable("number", text))
}

/// Microseconds from the beginning of 2000 to an instant as `DateStyle` ISO in UTC writes it: `2024-10-29 00:00:00.5+00`,
/// `infinity`, `0044-03-15 12:00:00 BC`. `None` if it is none.
fn timestamp(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let text = std::str::from_utf8(text).ok()?;
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, time) = text.strip_suffix("+00").unwrap_or(text).split_once(' ')?;
    let mut parts = date.split('-').map(str::parse::<u32>);
    let [year, month, day] = [(); 3].map(|()| parts.next().and_then(Result::ok));
    // There is no year 0: the year before 1 is 1 BC.
    let year = if before_christ { 1 - i64::from(year?) } else { i64::from(year?) };
    // The calendar repeats, and the server stores years that no date of ours can have.
    let (cycle, year) = ((year - 2000).div_euclid(YEARS_PER_CYCLE), (year - 2000).rem_euclid(YEARS_PER_CYCLE));
    let date = NaiveDate::from_ymd_opt(i32::try_from(2000 + year).ok()?, month?, day?)?;
    let days = cycle * DAYS_PER_CYCLE + date.signed_duration_since(NaiveDate::from_ymd_opt(2000, 1, 1)?).num_days();
    let time = time.parse::<NaiveTime>().ok()?;
    let microseconds = i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1_000);
    days.checked_mul(MICROSECONDS_PER_DAY)?.checked_add(microseconds).filter(|_| parts.next().is_none())
}

fn unreadable(kind: &str, text: &[u8]) -> io::Error {
    damaged(&format!("{:?} is no {kind}", String::from_utf8_lossy(&text[..text.len().min(80)])))
}

fn damaged(found: &str) -> io::Error {
    io::Error::other(found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(forms: &[Form], rows: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Encoder { forms: forms.to_vec(), plain: Vec::new() }.encode(rows.as_bytes(), &mut out)?;
        Ok(out)
    }

    #[test]
    fn a_row_is_its_number_of_fields_and_each_value_with_its_length() {
        let row = encoded(&[Form::Int4, Form::Text, Form::Jsonb, Form::Bool], "-7\t\\N\t{}\tt\n").unwrap();
        assert_eq!(row, b"\0\x04\0\0\0\x04\xff\xff\xff\xf9\xff\xff\xff\xff\0\0\0\x03\x01{}\0\0\0\x01\x01");
    }

    #[test]
    fn escapes_are_undone_and_an_empty_text_is_no_null() {
        let row = encoded(&[Form::Text, Form::Text], "a\\tb\\\\N\\n\t\n").unwrap();
        assert_eq!(row, b"\0\x02\0\0\0\x06a\tb\\N\n\0\0\0\0");
    }

    #[test]
    fn a_row_that_does_not_fit_its_table_is_refused_and_so_is_a_value_that_is_none() {
        let refused = [
            (&[Form::Text][..], "a\tb\n"),
            (&[Form::Text, Form::Text], "a\n"),
            (&[Form::Text], "a\\x41\n"),
            (&[Form::Int2], "40000\n"),
            (&[Form::Bool], "true\n"),
            (&[Form::Uuid], "1\n"),
            (&[Form::Timestamp], "2024-13-01 00:00:00\n"),
            (&[Form::Timestamp], "2024-12-01 00:00:00+01\n"),
        ];
        for (forms, row) in refused {
            assert!(encoded(forms, row).is_err(), "{row:?} was taken");
        }
    }

    #[test]
    fn instants_are_microseconds_since_2000() {
        assert_eq!(timestamp(b"2000-01-01 00:00:00"), Some(0));
        assert_eq!(timestamp(b"2000-01-02 00:00:00.000001+00"), Some(MICROSECONDS_PER_DAY + 1));
        assert_eq!(timestamp(b"1999-12-31 23:59:59.5"), Some(-500_000));
        assert_eq!(timestamp(b"infinity"), Some(i64::MAX));
        // The last day that PostgreSQL stores ends at `END_TIMESTAMP` of its source.
        assert_eq!(timestamp(b"294276-12-31 00:00:00"), Some(9_223_371_331_200_000_000 - MICROSECONDS_PER_DAY));
        assert_eq!(timestamp(b"2023-02-29 00:00:00"), None);
        // Julian day 0, the least that PostgreSQL stores, is 2,451,545 days before 2000.
        assert_eq!(timestamp(b"4714-11-24 00:00:00 BC"), Some(-2_451_545 * MICROSECONDS_PER_DAY));
    }
}
