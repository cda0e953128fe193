//! Takes passwords out of the URLs in a text, before it goes to a log or into the ledger.
use std::borrow::Cow;

/// `postgres://ann:secret@db/x` becomes `postgres://ann:***@db/x`, as often as the text holds one.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let authority = after.find(['/', '?', '#', ' ', '\n', '"', '\'']).unwrap_or(after.len());
        rest = after;
        let Some((user, host)) = after[..authority].rsplit_once('@') else { continue };
        let Some((name, _)) = user.split_once(':') else { continue };
        shown.push_str(name);
        shown.push_str(":***@");
        rest = &after[authority - host.len()..];
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// [`redact`]ed, and of what PostgreSQL's `text` and `jsonb` can hold: NUL, the one character they cannot, is replaced.
pub(crate) fn storable(text: &str) -> String {
    redact(text).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::{redact, storable};

    #[test]
    fn what_is_stored_holds_neither_passwords_nor_nul() {
        assert_eq!(storable("a\0b at postgres://ann:s@db/x"), "a\u{fffd}b at postgres://ann:***@db/x");
    }

    #[test]
    fn passwords_are_hidden_wherever_a_url_stands() {
        let text = "cannot reach postgres://ann:s3@cr:et@db:5432/x?a=b nor \"s3://k:v@host\" (see https://docs.example:80/a:b@c)";
        let shown = "cannot reach postgres://ann:***@db:5432/x?a=b nor \"s3://k:***@host\" (see https://docs.example:80/a:b@c)";
        assert_eq!(redact(text), shown);
    }

    #[test]
    fn what_holds_no_password_is_left_as_it_is() {
        for text in ["", "plain", "http://127.0.0.1:3900/livez", "postgres://ann@db/x", "a://", "mail ann@example.org: x"] {
            assert_eq!(redact(text), text);
        }
    }
}
