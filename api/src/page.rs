//! Pages of a list: `{data, nextCursor, hasMore}`, walked by an opaque cursor that names the last row seen.

use serde::Serialize;

use crate::problem::Problem;

/// One page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
    has_more: bool,
}

/// How many rows to answer with; lists ask the database for one more, to know whether there is more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(i64);

impl Limit {
    /// 1 to 1000, by default 50.
    pub(crate) fn of(asked: Option<i64>) -> Result<Self, Problem> {
        let limit = asked.unwrap_or(50);
        if (1..=1000).contains(&limit) {
            return Ok(Self(limit));
        }
        Err(Problem::bad_request("VALIDATION_ERROR", "limit must be between 1 and 1000"))
    }

    pub(crate) fn and_one_more(self) -> i64 {
        self.0 + 1
    }
}

impl<T> Page<T> {
    /// A page of `rows`, which may hold one more than the limit; `place` names a row.
    pub(crate) fn of(mut rows: Vec<T>, limit: Limit, place: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit.0).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| has_more).map(|row| hex::encode(place(row)));
        Self { data: rows, next_cursor, has_more }
    }
}

/// The two parts of the place that a cursor of [`Page::of`] names as `a/b`.
pub(crate) fn place(cursor: &str) -> Result<(String, String), Problem> {
    let bad = || Problem::bad_request("VALIDATION_ERROR", "this cursor is not one that this list gave out");
    let text = String::from_utf8(hex::decode(cursor).map_err(|_| bad())?).map_err(|_| bad())?;
    // Anything else could not have been a place, and the database cannot hold every character.
    let (first, second) = text.split_once('/').filter(|_| text.chars().all(|c| c.is_ascii_graphic())).ok_or_else(bad)?;
    Ok((first.to_owned(), second.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_there_is_more() {
        let limit = Limit::of(Some(2)).unwrap();
        let page = Page::of(vec![1, 2, 3], limit, |row| format!("a/{row}"));
        assert_eq!((page.data.as_slice(), page.has_more), ([1, 2].as_slice(), true));
        assert_eq!(place(&page.next_cursor.unwrap()).unwrap(), ("a".to_owned(), "2".to_owned()));
        let last = Page::of(vec![1, 2], limit, |row| format!("a/{row}"));
        assert_eq!((last.has_more, last.next_cursor), (false, None));
        assert!(Limit::of(Some(0)).is_err() && Limit::of(Some(1001)).is_err());
        assert!(place("zz").is_err());
    }
}
