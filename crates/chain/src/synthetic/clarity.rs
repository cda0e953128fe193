//! Clarity values as bytes (SIP-005): the encoder behind arguments, prints, token ids and results.
//!
//! Not a type checker: nobody here asks whether a contract would take the value.
//! Invariant: tuple keys come out sorted, as every node writes them.

use super::account::Principal;

/// The bytes of one Clarity value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clarity(Vec<u8>);

impl Clarity {
    /// `u128`: type 1.
    pub(super) fn uint(value: impl Into<u128>) -> Self {
        Self::tagged(0x01, &value.into().to_be_bytes())
    }

    /// `i128`: type 0.
    pub(super) fn int(value: i128) -> Self {
        Self::tagged(0x00, &value.to_be_bytes())
    }

    /// A buffer of up to 2³² bytes: type 2.
    pub(super) fn buffer(bytes: &[u8]) -> Self {
        Self::counted(0x02, bytes.len(), bytes)
    }

    /// `true` or `false`: types 3 and 4.
    pub(super) fn bool(value: bool) -> Self {
        Self(vec![if value { 0x03 } else { 0x04 }])
    }

    /// An address, or a contract of an address: types 5 and 6.
    pub(super) fn principal(principal: &Principal) -> Self {
        let mut bytes = Vec::with_capacity(64);
        principal.write_clarity(&mut bytes);
        Self(bytes)
    }

    /// `(ok value)`: type 7.
    pub(super) fn ok(value: &Self) -> Self {
        Self::tagged(0x07, &value.0)
    }

    /// `(err value)`: type 8.
    pub(super) fn err(value: &Self) -> Self {
        Self::tagged(0x08, &value.0)
    }

    /// `none`: type 9.
    pub(super) fn none() -> Self {
        Self(vec![0x09])
    }

    /// `(some value)`: type 10.
    pub(super) fn some(value: &Self) -> Self {
        Self::tagged(0x0a, &value.0)
    }

    /// A list: type 11.
    pub(super) fn list(items: &[Self]) -> Self {
        let body: Vec<u8> = items.iter().flat_map(|item| item.0.iter().copied()).collect();
        Self::counted(0x0b, items.len(), &body)
    }

    /// A tuple: type 12. Keys are ASCII and at most 128 bytes long.
    pub(super) fn tuple(mut fields: Vec<(&str, Self)>) -> Self {
        fields.sort_by_key(|(key, _)| *key);
        let mut body = Vec::with_capacity(fields.len() * 40);
        for (key, value) in &fields {
            body.push(key.len() as u8);
            body.extend_from_slice(key.as_bytes());
            body.extend_from_slice(&value.0);
        }
        Self::counted(0x0c, fields.len(), &body)
    }

    /// A string of ASCII characters: type 13.
    pub(super) fn ascii(text: &str) -> Self {
        Self::counted(0x0d, text.len(), text.as_bytes())
    }

    /// A string of UTF-8 characters: type 14.
    pub(super) fn utf8(text: &str) -> Self {
        Self::counted(0x0e, text.len(), text.as_bytes())
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as the node writes them into JSON: `0x` + hex.
    pub(super) fn hex(&self) -> String {
        prefixed_hex(&self.0)
    }

    fn tagged(tag: u8, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(tag);
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    fn counted(tag: u8, count: usize, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(5 + body.len());
        bytes.push(tag);
        bytes.extend_from_slice(&(count as u32).to_be_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }
}

/// `0x` + lower-case hex.
pub(super) fn prefixed_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Clarity;

    #[test]
    fn values_have_the_bytes_of_sip_005() {
        assert_eq!(Clarity::ok(&Clarity::bool(true)).hex(), "0x0703");
        assert_eq!(Clarity::uint(52u64).hex(), "0x0100000000000000000000000000000034");
        assert_eq!(Clarity::int(-1).hex(), "0x00ffffffffffffffffffffffffffffffff");
        assert_eq!(Clarity::some(&Clarity::buffer(&[1, 2])).hex(), "0x0a02000000020102");
        assert_eq!(Clarity::list(&[Clarity::none(), Clarity::none()]).hex(), "0x0b000000020909");
        assert_eq!(Clarity::ascii("ab").hex(), "0x0d000000026162");
        assert_eq!(Clarity::utf8("é").hex(), "0x0e00000002c3a9");
    }

    #[test]
    fn tuple_keys_are_sorted() {
        let tuple = Clarity::tuple(vec![("b", Clarity::bool(false)), ("a", Clarity::none())]);
        assert_eq!(tuple.hex(), "0x0c00000002016109016204");
    }
}
