//! Clarity values in their consensus encoding (SIP-005): type byte, then content, big-endian.
//!
//! Not the language and not its types. Depth is bounded, and no count read from the bytes is believed before the bytes
//! for it are there, so hostile input costs no more than its own length.

use crate::address::{self, AddressError};
use crate::cursor::{Cursor, Truncated};

/// Deepest nesting followed. The node itself refuses types nested deeper than 32.
pub const MAX_DEPTH: usize = 64;

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `int`.
    Int(i128),
    /// `uint`.
    UInt(u128),
    /// `(buff n)`.
    Buffer(Vec<u8>),
    /// `bool`.
    Bool(bool),
    /// `principal`: an account or a contract.
    Principal(Principal),
    /// `(ok …)`.
    Ok(Box<Value>),
    /// `(err …)`.
    Err(Box<Value>),
    /// `none`.
    None,
    /// `(some …)`.
    Some(Box<Value>),
    /// `(list …)`.
    List(Vec<Value>),
    /// `(tuple …)`, in the order of the bytes.
    Tuple(Vec<(String, Value)>),
    /// `(string-ascii n)`; bytes outside ASCII are replaced, as the node never writes them.
    Ascii(String),
    /// `(string-utf8 n)`; invalid bytes are replaced.
    Utf8(String),
}

/// An account, or a contract of that account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Address version byte.
    pub version: u8,
    /// The account's key hash.
    pub hash160: [u8; 20],
    /// Name of the contract, for contract principals.
    pub contract: Option<String>,
}

impl Principal {
    /// The c32 text: `SP…` or `SP….contract`.
    ///
    /// # Errors
    /// When the version does not fit one c32 digit.
    pub fn text(&self) -> Result<String, AddressError> {
        let account = address::encode(self.version, &self.hash160)?;
        Ok(match &self.contract {
            Some(name) => format!("{account}.{name}"),
            None => account,
        })
    }
}

/// Why bytes are no Clarity value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClarityError {
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// No type has this id.
    #[error("unknown clarity type id 0x{id:02x} at offset {offset}")]
    TypeId {
        /// The byte found.
        id: u8,
        /// Where.
        offset: usize,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error("clarity value nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More bytes than the value has.
    #[error("{0} bytes follow the clarity value")]
    Trailing(usize),
}

/// Decodes bytes that hold exactly one value.
///
/// # Errors
/// See [`ClarityError`].
pub fn decode(bytes: &[u8]) -> Result<Value, ClarityError> {
    let mut cursor = Cursor::new(bytes);
    let value = read(&mut cursor, 0)?;
    match cursor.left() {
        0 => Ok(value),
        left => Err(ClarityError::Trailing(left)),
    }
}

/// Number of bytes of the value at the start, without building it.
///
/// # Errors
/// See [`ClarityError`]; bytes after the value are not an error.
pub fn length(bytes: &[u8]) -> Result<usize, ClarityError> {
    let mut cursor = Cursor::new(bytes);
    skip(&mut cursor)?;
    Ok(cursor.position())
}

/// Splits an argument list (u32 count, then that many values) into each value's own bytes.
pub(crate) fn arguments<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<&'a [u8]>, ClarityError> {
    let count = cursor.u32()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let start = cursor.position();
        skip(cursor)?;
        values.push(cursor.since(start));
    }
    Ok(values)
}

/// Splits bytes that hold exactly one argument list (u32 count, then that many values) into each value's own bytes.
///
/// # Errors
/// See [`ClarityError`].
pub fn argument_list(bytes: &[u8]) -> Result<Vec<&[u8]>, ClarityError> {
    let mut cursor = Cursor::new(bytes);
    let values = arguments(&mut cursor)?;
    match cursor.left() {
        0 => Ok(values),
        left => Err(ClarityError::Trailing(left)),
    }
}

pub(crate) fn skip(cursor: &mut Cursor<'_>) -> Result<(), ClarityError> {
    skip_at(cursor, 0)
}

fn skip_at(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), ClarityError> {
    if depth > MAX_DEPTH {
        return Err(ClarityError::TooDeep);
    }
    let offset = cursor.position();
    match cursor.u8()? {
        0x00 | 0x01 => drop(cursor.take(16)?),
        0x02 | 0x0d | 0x0e => drop(cursor.long()?),
        0x03 | 0x04 | 0x09 => {}
        0x05 => drop(cursor.take(21)?),
        0x06 => {
            cursor.take(21)?;
            cursor.short()?;
        }
        0x07 | 0x08 | 0x0a => skip_at(cursor, depth + 1)?,
        0x0b => {
            for _ in 0..cursor.u32()? {
                skip_at(cursor, depth + 1)?;
            }
        }
        0x0c => {
            for _ in 0..cursor.u32()? {
                cursor.short()?;
                skip_at(cursor, depth + 1)?;
            }
        }
        id => return Err(ClarityError::TypeId { id, offset }),
    }
    Ok(())
}

pub(crate) fn read_principal(cursor: &mut Cursor<'_>, is_contract: bool) -> Result<Principal, Truncated> {
    Ok(Principal {
        version: cursor.u8()?,
        hash160: cursor.array()?,
        contract: if is_contract { Some(text(cursor.short()?)) } else { None },
    })
}

fn read(cursor: &mut Cursor<'_>, depth: usize) -> Result<Value, ClarityError> {
    if depth > MAX_DEPTH {
        return Err(ClarityError::TooDeep);
    }
    let offset = cursor.position();
    let inner = |cursor: &mut Cursor<'_>| read(cursor, depth + 1).map(Box::new);
    Ok(match cursor.u8()? {
        0x00 => Value::Int(i128::from_be_bytes(cursor.array()?)),
        0x01 => Value::UInt(u128::from_be_bytes(cursor.array()?)),
        0x02 => Value::Buffer(cursor.long()?.to_vec()),
        0x03 => Value::Bool(true),
        0x04 => Value::Bool(false),
        0x05 => Value::Principal(read_principal(cursor, false)?),
        0x06 => Value::Principal(read_principal(cursor, true)?),
        0x07 => Value::Ok(inner(cursor)?),
        0x08 => Value::Err(inner(cursor)?),
        0x09 => Value::None,
        0x0a => Value::Some(inner(cursor)?),
        0x0b => Value::List(read_list(cursor, depth)?),
        0x0c => Value::Tuple(read_tuple(cursor, depth)?),
        0x0d => Value::Ascii(text(cursor.long()?)),
        0x0e => Value::Utf8(text(cursor.long()?)),
        id => return Err(ClarityError::TypeId { id, offset }),
    })
}

fn read_list(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Value>, ClarityError> {
    (0..cursor.u32()?).map(|_| read(cursor, depth + 1)).collect()
}

fn read_tuple(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<(String, Value)>, ClarityError> {
    (0..cursor.u32()?).map(|_| Ok((text(cursor.short()?), read(cursor, depth + 1)?))).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex_text: &str) -> Vec<u8> {
        hex::decode(hex_text).expect("hex")
    }

    #[test]
    fn a_tuple_decodes_with_its_names_and_128_bit_numbers() {
        let raw = bytes("0c000000020161 01ffffffffffffffffffffffffffffffff0162 0a0d00000003616263".replace(' ', "").as_str());
        let expected = Value::Tuple(vec![
            ("a".into(), Value::UInt(u128::MAX)),
            ("b".into(), Value::Some(Box::new(Value::Ascii("abc".into())))),
        ]);
        assert_eq!(decode(&raw), Ok(expected));
        assert_eq!(length(&raw), Ok(raw.len()));
    }

    #[test]
    fn a_list_that_claims_four_billion_elements_fails_at_its_end() {
        let raw = bytes("0bffffffff0304");
        assert!(matches!(decode(&raw), Err(ClarityError::Truncated(_))));
        assert!(matches!(length(&raw), Err(ClarityError::Truncated(_))));
    }

    #[test]
    fn nesting_is_bounded() {
        let raw = vec![0x0a; 1_000_000];
        assert_eq!(decode(&raw), Err(ClarityError::TooDeep));
        assert_eq!(length(&raw), Err(ClarityError::TooDeep));
    }

    #[test]
    fn unknown_types_and_trailing_bytes_are_refused() {
        assert_eq!(decode(&[0x0f]), Err(ClarityError::TypeId { id: 0x0f, offset: 0 }));
        assert_eq!(decode(&[0x03, 0x03]), Err(ClarityError::Trailing(1)));
    }

    #[test]
    fn no_prefix_or_flipped_byte_of_a_value_panics_and_both_readers_agree() {
        let raw = bytes(
            "0c0000000201610b00000002090a050000000000000000000000000000000000000000000162060000000000000000000000000000000000000000000178",
        );
        assert!(decode(&raw).is_ok());
        for cut in 0..raw.len() {
            assert!(decode(&raw[..cut]).is_err());
        }
        for at in 0..raw.len() {
            for flip in 1..=255 {
                let mut bad = raw.clone();
                bad[at] ^= flip;
                let whole = length(&bad).ok() == Some(bad.len());
                assert_eq!(decode(&bad).is_ok(), whole);
            }
        }
    }
}
