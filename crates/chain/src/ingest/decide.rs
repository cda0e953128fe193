//! Where a new block stands, and which blocks leave and enter the canonical chain for it.
//!
//! The rule is `canonical`'s, applied to one arrival: the chain below a canonical block depends on nothing above it, so
//! only the link over the new block's height can change, and walking back from the new block ends at the first block
//! that is canonical already. The cost is the depth of the reorganisation, not the length of the chain.

use sqlx::PgConnection;

use super::parentage::{self, Link};

/// Blocks to move, each list lowest first.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) leaving: Vec<Link>,
    pub(super) entering: Vec<Link>,
}

/// The change that a recorded block brings, or nothing when it does not become canonical.
pub(super) async fn place(conn: &mut PgConnection, new: &Link) -> sqlx::Result<Option<Change>> {
    let above = parentage::canonical_above(conn, new.height).await?;
    if !enters(conn, new, above.as_ref()).await? {
        return Ok(None);
    }
    let mut entering = vec![new.clone()];
    let mut below = None;
    let mut at = new.clone();
    while let Some(next) = previous(conn, &at).await? {
        if next.canonical {
            below = Some(next.height);
            break;
        }
        entering.push(next.clone());
        at = next;
    }
    entering.reverse();
    let high = above.map_or(i64::MAX, |link| link.height);
    let leaving = parentage::canonical_between(conn, below.unwrap_or(-1), high).await?;
    Ok(Some(Change { leaving, entering }))
}

/// Whether the block becomes the tip, or the block that the canonical one above it stands on.
async fn enters(conn: &mut PgConnection, new: &Link, above: Option<&Link>) -> sqlx::Result<bool> {
    if let Some(above) = above
        && let Some(parent) = parentage::parent(conn, above).await?
    {
        return Ok(parent.id == new.id);
    }
    // Above is nothing, or a block whose parent is missing: the highest stands, the first arrived of two.
    let below = parentage::canonical_at_or_below(conn, new.height).await?;
    Ok(below.is_none_or(|below| below.height < new.height))
}

async fn previous(conn: &mut PgConnection, link: &Link) -> sqlx::Result<Option<Link>> {
    match parentage::parent(conn, link).await? {
        Some(parent) => Ok(Some(parent)),
        None => parentage::highest_below(conn, link.height).await,
    }
}
