//! Statements on `snapshots.chain_block`: every block ever seen, with its parent and whether it is canonical.

use sqlx::{FromRow, PgConnection};

use crate::model::Block;

/// A block as following the chain needs it.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Link {
    pub(super) id: String,
    pub(super) parent_id: String,
    pub(super) height: i64,
    pub(super) parent_hash: String,
    pub(super) canonical: bool,
    pub(super) adopted: bool,
    pub(super) transaction_count: Option<i32>,
}

/// Selects a [`Link`]; what follows is the condition.
macro_rules! links {
    ($rest:literal) => {
        concat!(
            "select c.index_block_hash as id, c.parent_index_block_hash as parent_id, c.height, c.parent_hash,
                    c.canonical, c.adopted, c.transaction_count
             from snapshots.chain_block c ",
            $rest
        )
    };
}

/// The block of an id.
pub(super) async fn find(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Link>> {
    sqlx::query_as(links!("where c.index_block_hash = $1")).bind(id).fetch_optional(conn).await
}

/// The parent, if it was recorded; blocks that another indexer stored are known by height and hash only.
pub(super) async fn parent(conn: &mut PgConnection, link: &Link) -> sqlx::Result<Option<Link>> {
    sqlx::query_as(links!(
        "where (c.index_block_hash = $1 and c.height < $2)
            or (c.height = $2 - 1 and c.hash = $3 and (c.adopted or $4))
         order by (c.index_block_hash = $1) desc, c.arrival limit 1"
    ))
    .bind(&link.parent_id)
    .bind(link.height)
    .bind(&link.parent_hash)
    .bind(link.adopted)
    .fetch_optional(conn)
    .await
}

/// The highest block below a height, the first arrived of several.
pub(super) async fn highest_below(conn: &mut PgConnection, height: i64) -> sqlx::Result<Option<Link>> {
    sqlx::query_as(links!("where c.height < $1 order by c.height desc, c.arrival limit 1"))
        .bind(height)
        .fetch_optional(conn)
        .await
}

/// The lowest canonical block above a height.
pub(super) async fn canonical_above(conn: &mut PgConnection, height: i64) -> sqlx::Result<Option<Link>> {
    sqlx::query_as(links!("where c.canonical and c.height > $1 order by c.height limit 1"))
        .bind(height)
        .fetch_optional(conn)
        .await
}

/// The highest canonical block at or below a height.
pub(super) async fn canonical_at_or_below(conn: &mut PgConnection, height: i64) -> sqlx::Result<Option<Link>> {
    sqlx::query_as(links!("where c.canonical and c.height <= $1 order by c.height desc limit 1"))
        .bind(height)
        .fetch_optional(conn)
        .await
}

/// Canonical blocks strictly between two heights, lowest first.
pub(super) async fn canonical_between(conn: &mut PgConnection, low: i64, high: i64) -> sqlx::Result<Vec<Link>> {
    sqlx::query_as(links!("where c.canonical and c.height > $1 and c.height < $2 order by c.height"))
        .bind(low)
        .bind(high)
        .fetch_all(conn)
        .await
}

/// Canonical blocks that are not wholly in the chain tables, lowest first.
pub(super) async fn partial(conn: &mut PgConnection) -> sqlx::Result<Vec<Link>> {
    sqlx::query_as(links!("where c.canonical and c.partial order by c.height")).fetch_all(conn).await
}

/// Records a new block, not canonical yet.
pub(super) async fn insert(conn: &mut PgConnection, block: &Block) -> sqlx::Result<Link> {
    sqlx::query_as(
        "insert into snapshots.chain_block (index_block_hash, parent_index_block_hash, height, hash, parent_hash,
             burn_block_hash, canonical, transaction_count, event_count, uncommitted)
         values ($1, $2, $3, $4, $5, $6, false, $7, $8, $9)
         returning index_block_hash as id, parent_index_block_hash as parent_id, height, parent_hash, canonical, adopted,
             transaction_count",
    )
    .bind(&block.index_block_hash)
    .bind(&block.parent_index_block_hash)
    .bind(block.height.cast_signed())
    .bind(&block.hash)
    .bind(&block.parent_hash)
    .bind(&block.burn_block_hash)
    .bind(i32::try_from(block.transactions.len()).unwrap_or(i32::MAX))
    .bind(i32::try_from(block.events.len()).unwrap_or(i32::MAX))
    .bind(uncommitted(block))
    .fetch_one(conn)
    .await
}

/// Gives a block that another indexer stored its true id and parent, when a node delivers it to us.
pub(super) async fn recognise(conn: &mut PgConnection, block: &Block) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update snapshots.chain_block
         set index_block_hash = $3, parent_index_block_hash = $4, burn_block_hash = $5, adopted = false, uncommitted = $6
         where height = $1 and hash = $2 and adopted",
    )
    .bind(block.height.cast_signed())
    .bind(&block.hash)
    .bind(&block.index_block_hash)
    .bind(&block.parent_index_block_hash)
    .bind(&block.burn_block_hash)
    .bind(uncommitted(block))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes the content that a block delivered empty before has now.
pub(super) async fn set_counts(conn: &mut PgConnection, block: &Block) -> sqlx::Result<()> {
    sqlx::query(
        "update snapshots.chain_block set transaction_count = $2, event_count = $3, uncommitted = $4
         where index_block_hash = $1",
    )
    .bind(&block.index_block_hash)
    .bind(i32::try_from(block.transactions.len()).unwrap_or(i32::MAX))
    .bind(i32::try_from(block.events.len()).unwrap_or(i32::MAX))
    .bind(uncommitted(block))
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks the canonical blocks of these heights orphaned.
pub(super) async fn set_orphaned(conn: &mut PgConnection, heights: &[i64]) -> sqlx::Result<()> {
    sqlx::query("update snapshots.chain_block set canonical = false, partial = false where canonical and height = any($1)")
        .bind(heights)
        .execute(conn)
        .await?;
    Ok(())
}

/// Marks a block canonical.
pub(super) async fn set_canonical(conn: &mut PgConnection, id: &str) -> sqlx::Result<()> {
    sqlx::query("update snapshots.chain_block set canonical = true where index_block_hash = $1").bind(id).execute(conn).await?;
    Ok(())
}

/// Notes whether some of a block's content waits aside.
pub(super) async fn set_partial(conn: &mut PgConnection, id: &str, partial: bool) -> sqlx::Result<()> {
    sqlx::query("update snapshots.chain_block set partial = $2 where index_block_hash = $1 and partial <> $2")
        .bind(id)
        .bind(partial)
        .execute(conn)
        .await?;
    Ok(())
}

fn uncommitted(block: &Block) -> Vec<i32> {
    block.events.iter().filter(|event| !event.committed).map(|event| event.event_index.cast_signed()).collect()
}
