//! Decides how high a snapshot may reach, and refuses chains it must not be cut from.
//!
//! The height H is the highest canonical block that lies at least `confirmations` Bitcoin blocks deep. Everything from the
//! first block to H must be there, once, canonical, each naming its predecessor; nothing above H is in the snapshot.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// The chain a snapshot is about to be cut from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFacts {
    /// Lowest block in the database.
    pub first: u64,
    /// The snapshot's height H.
    pub height: u64,
    /// Hash of the block at H.
    pub hash: String,
    /// Time of the block at H, seconds since 1970.
    pub timestamp: u64,
    /// Bitcoin height of the block at H.
    pub burn_block_height: u64,
    /// Highest block in the database.
    pub tip: u64,
    /// Bitcoin height of that block.
    pub burn_tip: u64,
}

/// A chain that must not be published.
#[derive(Debug, thiserror::Error)]
pub enum HeightError {
    /// No blocks.
    #[error("the database holds no blocks; feed it with `snapshots ingest` or point DATABASE_URL at the indexer's database")]
    Empty,
    /// No progress row to take the network from.
    #[error(
        "index_progress has no row, so the network is unknown; let the indexer store a block (or feed recordings with `snapshots ingest`)"
    )]
    NoNetwork,
    /// Another network than asked for.
    #[error("the database indexes {found}, not {wanted}; correct --network or DATABASE_URL")]
    OtherNetwork {
        /// What was asked for.
        wanted: String,
        /// What index_progress says.
        found: String,
    },
    /// Several networks.
    #[error("index_progress has several networks ({found}); choose one with --network")]
    SeveralNetworks {
        /// What index_progress says.
        found: String,
    },
    /// Too short.
    #[error(
        "no block is final yet: the highest block {tip} is anchored at Bitcoin block {burn_tip}, and none lies {confirmations} Bitcoin blocks below; wait for more blocks or lower --confirmations"
    )]
    NotFinal {
        /// Highest block.
        tip: u64,
        /// Its Bitcoin height.
        burn_tip: u64,
        /// Depth asked for.
        confirmations: u32,
    },
    /// Missing blocks.
    #[error(
        "the chain has gaps: {missing} of the blocks {first}..={height} are missing or not canonical, first {example}; let the indexer backfill them, then run again"
    )]
    Gap {
        /// Lowest block.
        first: u64,
        /// Height that was to be published.
        height: u64,
        /// Number of missing heights.
        missing: u64,
        /// The first few missing heights.
        example: String,
    },
    /// Wrong parents.
    #[error(
        "the chain is broken: {count} blocks up to {height} do not name the block below as their parent, first at height {example}; re-index these heights, then run again"
    )]
    BrokenLink {
        /// Height that was to be published.
        height: u64,
        /// Number of blocks.
        count: u64,
        /// The first few.
        example: String,
    },
    /// Rows that no restore could satisfy.
    #[error(
        "{count} events up to height {height} belong to transactions stored above it, so a restore would break the foreign key; wait until these blocks are final"
    )]
    Dangling {
        /// Height that was to be published.
        height: u64,
        /// Number of events.
        count: u64,
    },
    /// The database failed.
    #[error("cannot examine the chain")]
    Database(#[from] sqlx::Error),
}

/// The network this database indexes: the only row of `index_progress`, or the wanted one of several.
///
/// # Errors
/// [`HeightError::NoNetwork`], [`HeightError::OtherNetwork`], [`HeightError::SeveralNetworks`].
pub async fn network(conn: &mut PgConnection, wanted: Option<&str>) -> Result<String, HeightError> {
    let found: Vec<String> = sqlx::query_scalar("select network from public.index_progress order by 1").fetch_all(conn).await?;
    match (wanted, found.as_slice()) {
        (Some(wanted), found) if found.iter().any(|network| network == wanted) => Ok(wanted.to_owned()),
        (_, []) => Err(HeightError::NoNetwork),
        (Some(wanted), found) => Err(HeightError::OtherNetwork { wanted: wanted.into(), found: found.join(", ") }),
        (None, [only]) => Ok(only.clone()),
        (None, several) => Err(HeightError::SeveralNetworks { found: several.join(", ") }),
    }
}

/// Finds H. The chain up to it is not looked at yet: that is [`gate`]'s business.
///
/// # Errors
/// [`HeightError::Empty`], [`HeightError::NotFinal`].
pub async fn find(conn: &mut PgConnection, confirmations: u32) -> Result<ChainFacts, HeightError> {
    let (first, tip) = ends(conn).await?.ok_or(HeightError::Empty)?;
    let burn_tip = block_at(conn, tip).await?.burn_block_height;
    let final_burn = burn_tip.checked_sub(u64::from(confirmations));
    let height = match final_burn {
        Some(burn) => highest_anchored_at(conn, burn).await?,
        None => None,
    };
    let height = height.ok_or(HeightError::NotFinal { tip, burn_tip, confirmations })?;
    let block = block_at(conn, height).await?;
    let Block { hash, timestamp, burn_block_height } = block;
    Ok(ChainFacts { first, height, hash, timestamp, burn_block_height, tip, burn_tip })
}

/// Refuses a chain with faults in `from..=H`, the link from `from` to the block below it included. What lies below `from` was
/// checked when an earlier snapshot was cut, and is known to be unchanged; `from` is the lowest block where nothing is.
///
/// # Errors
/// [`HeightError::Gap`], [`HeightError::BrokenLink`], [`HeightError::Dangling`].
pub async fn gate(conn: &mut PgConnection, facts: &ChainFacts, from: u64) -> Result<(), HeightError> {
    if from <= facts.height {
        refuse_gaps(conn, from, facts.height).await?;
        refuse_broken_links(conn, from, facts.height).await?;
    }
    refuse_dangling(conn, facts.height).await
}

struct Block {
    hash: String,
    timestamp: u64,
    burn_block_height: u64,
}

async fn ends(conn: &mut PgConnection) -> sqlx::Result<Option<(u64, u64)>> {
    let (first, last): (Option<i64>, Option<i64>) =
        sqlx::query_as("select min(height), max(height) from public.blocks where canonical").fetch_one(conn).await?;
    Ok(first.zip(last).map(|(first, last)| (first.unsigned_abs(), last.unsigned_abs())))
}

async fn block_at(conn: &mut PgConnection, height: u64) -> sqlx::Result<Block> {
    let (hash, timestamp, burn): (String, i64, i64) =
        sqlx::query_as("select hash, \"timestamp\", burn_block_height from public.blocks where height = $1")
            .bind(height.cast_signed())
            .fetch_one(conn)
            .await?;
    Ok(Block { hash, timestamp: timestamp.unsigned_abs(), burn_block_height: burn.unsigned_abs() })
}

/// Walks down from the tip; finality is a few hundred blocks deep, so this reads few rows.
async fn highest_anchored_at(conn: &mut PgConnection, burn: u64) -> sqlx::Result<Option<u64>> {
    let height: Option<i64> = sqlx::query_scalar(
        "select height from public.blocks where canonical and burn_block_height <= $1 order by height desc limit 1",
    )
    .bind(burn.cast_signed())
    .fetch_optional(conn)
    .await?;
    Ok(height.map(i64::unsigned_abs))
}

async fn refuse_gaps(conn: &mut PgConnection, first: u64, height: u64) -> Result<(), HeightError> {
    let present: i64 = sqlx::query_scalar("select count(*) from public.blocks where canonical and height between $1 and $2")
        .bind(first.cast_signed())
        .bind(height.cast_signed())
        .fetch_one(&mut *conn)
        .await?;
    let missing = (height - first + 1) - present.unsigned_abs();
    if missing == 0 {
        return Ok(());
    }
    let example: Vec<String> = sqlx::query_scalar(
        "select (height + 1)::text || case when next > height + 2 then '..=' || (next - 1)::text else '' end
         from (select height, lead(height) over (order by height) as next from public.blocks
               where canonical and height between $2 - 1 and $1) b
         where next > height + 1 order by height limit 5",
    )
    .bind(height.cast_signed())
    .bind(first.cast_signed())
    .fetch_all(conn)
    .await?;
    Err(HeightError::Gap { first, height, missing, example: example.join(", ") })
}

async fn refuse_broken_links(conn: &mut PgConnection, first: u64, height: u64) -> Result<(), HeightError> {
    let (count, example): (i64, Option<String>) = sqlx::query_as(
        "select count(*), string_agg(height::text, ', ' order by height) filter (where n <= 5)
         from (select height, row_number() over (order by height) as n
               from (select height, parent_hash, lag(hash) over (order by height) as below from public.blocks
                     where height between $2 - 1 and $1) b
               where below <> parent_hash) c",
    )
    .bind(height.cast_signed())
    .bind(first.cast_signed())
    .fetch_one(conn)
    .await?;
    if count == 0 {
        return Ok(());
    }
    Err(HeightError::BrokenLink { height, count: count.unsigned_abs(), example: example.unwrap_or_default() })
}

async fn refuse_dangling(conn: &mut PgConnection, height: u64) -> Result<(), HeightError> {
    // `offset 0` keeps the planner from turning this round: the few transactions above H are looked up among all events, never
    // the reverse.
    let count: i64 = sqlx::query_scalar(
        "select count(*) from public.transactions t
         cross join lateral (select from public.events e where e.tx_id = t.tx_id and e.block_height <= $1 offset 0) dangling
         where t.block_height > $1",
    )
    .bind(height.cast_signed())
    .fetch_one(conn)
    .await?;
    if count == 0 {
        return Ok(());
    }
    Err(HeightError::Dangling { height, count: count.unsigned_abs() })
}
