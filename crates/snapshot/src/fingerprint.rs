//! What tells, at little cost, whether a range of heights is still what it was: the identity of its blocks and its row counts.
//!
//! Not a proof: a changed byte inside a row of the same block is found by digesting rows (`cut::digest_rows`), which costs as
//! much as cutting them. Reads the narrow `blocks` table and two indexes, never a transaction's or an event's row.

use sqlx::PgConnection;

use crate::chunk::{Chunk, Heights};

/// The SQL expression of a range's digest, over rows of `blocks`. `sha256` is part of PostgreSQL since version 11.
macro_rules! chain_sha256 {
    () => {
        "encode(sha256(convert_to(coalesce(string_agg(height || ' ' || hash || ' ' || parent_hash || ' ' || canonical, E'\\n' \
         order by height), ''), 'UTF8')), 'hex')"
    };
}

/// A range of heights, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// sha256 (hex) over height, hash, parent hash and canonical flag of each block, lowest first.
    pub chain_sha256: String,
    /// Rows of `blocks`, `transactions` and `events`.
    pub rows: [u64; 3],
}

/// Digest of the blocks of one range, for the record that a later snapshot compares with.
///
/// # Errors
/// The database's.
pub async fn chain_digest(conn: &mut PgConnection, range: Heights) -> sqlx::Result<String> {
    sqlx::query_scalar(concat!("select ", chain_sha256!(), " from public.blocks where height between $1 and $2"))
        .bind(range.from.cast_signed())
        .bind(range.to.cast_signed())
        .fetch_one(conn)
        .await
}

/// Fingerprints of several ranges, in the order given.
///
/// # Errors
/// The database's.
pub async fn take(conn: &mut PgConnection, ranges: &[Heights]) -> sqlx::Result<Vec<Fingerprint>> {
    let ends = |end: fn(&Heights) -> u64| ranges.iter().map(|range| end(range).cast_signed()).collect::<Vec<i64>>();
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(concat!(
        "select b.digest, b.n, (select count(*) from public.transactions where block_height between r.low and r.high),
                (select count(*) from public.events where block_height between r.low and r.high)
         from unnest($1::bigint[], $2::bigint[]) with ordinality as r (low, high, place),
              lateral (select count(*) as n, ",
        chain_sha256!(),
        " as digest from public.blocks where height between r.low and r.high) b
         order by r.place"
    ))
    .bind(ends(|range| range.from))
    .bind(ends(|range| range.to))
    .fetch_all(conn)
    .await?;
    let counts = |blocks: i64, txs: i64, events: i64| [blocks, txs, events].map(i64::unsigned_abs);
    let one = |(chain_sha256, blocks, txs, events)| Fingerprint { chain_sha256, rows: counts(blocks, txs, events) };
    Ok(rows.into_iter().map(one).collect())
}

/// Rows of `blocks`, `transactions` and `events` in these chunks.
pub fn rows_of<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> [u64; 3] {
    let mut rows = [0; 3];
    for chunk in chunks {
        if let Some(place) = ["blocks", "transactions", "events"].iter().position(|table| *table == chunk.table) {
            rows[place] += chunk.rows;
        }
    }
    rows
}
