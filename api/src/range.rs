//! `Range` and the preconditions a resuming downloader sends (RFC 9110 §13, §14), for objects with a strong `ETag`.

use axum::http::{HeaderMap, header};
use snapshot::store::ObjectMeta;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The whole object.
    All,
    /// These bytes, first and last.
    Part((u64, u64)),
    /// A range that lies outside the object: 416.
    Nothing,
    /// `If-None-Match` names this version: 304.
    NotModified,
    /// `If-Match` names another version: 412.
    Changed,
}

pub(crate) fn wanted(headers: &HeaderMap, meta: &ObjectMeta) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let names_it = |list: &str| list.split(',').any(|one| one.trim() == "*" || one.trim() == meta.etag);
    if text(header::IF_MATCH).is_some_and(|list| !names_it(list)) {
        return Wanted::Changed;
    }
    if text(header::IF_NONE_MATCH).is_some_and(names_it) {
        return Wanted::NotModified;
    }
    // With `If-Range` another version means: send all of it, the part would not fit what the client has.
    if text(header::IF_RANGE).is_some_and(|etag| etag.trim() != meta.etag) {
        return Wanted::All;
    }
    text(header::RANGE).map_or(Wanted::All, |range| part(range, meta.bytes))
}

/// One range of bytes; several, or another unit, are answered with the whole object, as the RFC allows.
fn part(range: &str, bytes: u64) -> Wanted {
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return Wanted::All };
    let Some((from, to)) = spec.split_once('-').filter(|_| !spec.contains(',')) else { return Wanted::All };
    let (from, to) = match (from.trim(), to.trim()) {
        ("", "") => return Wanted::All,
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(length) => (bytes.saturating_sub(length.min(bytes)), bytes.saturating_sub(1)),
            Err(_) => return Wanted::All,
        },
        (from, "") => match from.parse() {
            Ok(from) => (from, bytes.saturating_sub(1)),
            Err(_) => return Wanted::All,
        },
        (from, to) => match (from.parse(), to.parse::<u64>()) {
            (Ok(from), Ok(to)) if from <= to => (from, to.min(bytes.saturating_sub(1))),
            _ => return Wanted::All,
        },
    };
    let empty_suffix = spec == "-0";
    if from >= bytes || empty_suffix { Wanted::Nothing } else { Wanted::Part((from, to)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(header::HeaderName, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(name, value.parse().unwrap());
        }
        let meta = ObjectMeta { bytes: 100, etag: "\"a\"".into(), content_type: None, cache_control: None };
        wanted(&headers, &meta)
    }

    #[test]
    fn ranges_are_clamped_to_the_object() {
        for (range, expected) in [
            ("bytes=0-9", Wanted::Part((0, 9))),
            ("bytes=90-", Wanted::Part((90, 99))),
            ("bytes=90-500", Wanted::Part((90, 99))),
            ("bytes=-10", Wanted::Part((90, 99))),
            ("bytes=-500", Wanted::Part((0, 99))),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=9-0", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("lines=0-1", Wanted::All),
            ("bytes=x-", Wanted::All),
        ] {
            assert_eq!(ask(&[(header::RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn a_download_of_another_version_is_not_resumed() {
        assert_eq!(ask(&[(header::RANGE, "bytes=5-"), (header::IF_MATCH, "\"b\"")]), Wanted::Changed);
        assert_eq!(ask(&[(header::RANGE, "bytes=5-"), (header::IF_RANGE, "\"b\"")]), Wanted::All);
        assert_eq!(ask(&[(header::RANGE, "bytes=5-"), (header::IF_RANGE, "\"a\"")]), Wanted::Part((5, 99)));
        assert_eq!(ask(&[(header::IF_NONE_MATCH, "\"a\"")]), Wanted::NotModified);
    }
}
