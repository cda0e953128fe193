//! Names that readers put into paths and queries, before they reach the bucket or the database.

/// Whether `text` can be a network or a snapshot's id: what is published has no other names, so nothing climbs out of its
/// folder, reaches a dot file of the embedded server, or upsets the database with characters that it cannot hold.
pub(crate) fn is_plain(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (1..=64).contains(&text.len()) && !text.starts_with('.') && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn a_name_holds_no_way_out() {
        assert!(is_plain("mainnet") && is_plain("2026-02-05.2"));
        for bad in ["", "..", ".upload", "a/b", "a\0b", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
