//! JSON kept as its text, and the removal of NUL characters from JSON.
//!
//! Not a parser. Event data hold 128-bit integers, which a parsed tree of 64-bit numbers would round; the text goes to
//! the database as it came, where `jsonb` keeps every digit.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One JSON value as text, known to be well formed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Takes the text of one JSON value.
    ///
    /// # Errors
    /// When the text is not exactly one JSON value.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The text, whitespace and order of keys as they came.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// A tree to look into. Integers beyond 64 bits are rounded there: amounts are strings and safe, the numbers
    /// inside a node's `value` are not (use `raw_value`).
    ///
    /// # Errors
    /// When the value is nested deeper than `serde_json` follows (128 levels).
    pub fn tree(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_str(self.text())
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl From<&RawValue> for JsonText {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }
}

/// Removes every escaped NUL (`\u0000`) from JSON text and says how many there were: neither `text` nor `jsonb` can hold
/// one. An unescaped NUL is not JSON; the parser refuses it.
#[must_use]
pub fn strip_nuls(json: &str) -> (Cow<'_, str>, usize) {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return (Cow::Borrowed(json), 0);
    }
    let (mut kept, mut removed, mut rest) = (String::with_capacity(json.len()), 0, json);
    while let Some(at) = rest.find('\\') {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(NUL) {
            removed += 1;
            rest = after;
            continue;
        }
        // An escape is the backslash and what follows it: skipping both keeps `\\u0000` (a backslash and text) whole.
        let escape = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
        kept.push_str(&rest[..escape]);
        rest = &rest[escape..];
    }
    kept.push_str(rest);
    (Cow::Owned(kept), removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_escapes_go_and_escaped_backslashes_before_u0000_stay() {
        let (text, removed) = strip_nuls(r#"{"a":"x\u0000y","b":"\\u0000","c":"\\\u0000é\n"}"#);
        assert_eq!(text, r#"{"a":"xy","b":"\\u0000","c":"\\é\n"}"#);
        assert_eq!(removed, 2);
    }

    #[test]
    fn integers_of_128_bits_keep_every_digit() {
        let text = r#"{"UInt":340282366920938463463374607431768211455}"#;
        let data: JsonText = serde_json::from_str(text).expect("json");
        assert_eq!(serde_json::to_string(&data).expect("text"), text);
    }

    #[test]
    fn text_that_is_not_one_value_is_refused() {
        assert!(JsonText::parse("{} {}".into()).is_err());
        assert!(JsonText::parse("{".into()).is_err());
    }
}
