//! The writer's lock, and `index_progress` as the original indexer keeps it.

use sqlx::PgConnection;

/// One writer at a time per database; arbitrary, ours alone.
const LOCK: i64 = 0x736e_6170_6368_6169;

/// Waits until no other ingest writes to this database; held to the end of the transaction.
pub(super) async fn lock(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(conn).await?;
    Ok(())
}

/// Moves progress on after a block of this height was stored. Heights never go down. The contiguous height follows the
/// original: it moves on when the next block comes, and starts at the lowest block when there was none.
pub(super) async fn advance(conn: &mut PgConnection, network: &str, height: u64) -> sqlx::Result<()> {
    let height = height.cast_signed();
    let current: Option<i64> = sqlx::query_scalar("select last_contiguous_block from public.index_progress where network = $1")
        .bind(network)
        .fetch_optional(&mut *conn)
        .await?;
    let current = current.unwrap_or(0);
    let contiguous = if height == current + 1 {
        run_end(conn, Some(height)).await?
    } else if current == 0 && height > 1 {
        run_end(conn, None).await?
    } else {
        None
    };
    sqlx::query(
        "insert into public.index_progress as p
             (network, last_indexed_block, last_contiguous_block, highest_seen_block, updated_at)
         values ($1, $2, $3, $2, now())
         on conflict (network) do update set
             last_indexed_block = greatest(p.last_indexed_block, excluded.last_indexed_block),
             last_contiguous_block = greatest(p.last_contiguous_block, excluded.last_contiguous_block),
             highest_seen_block = greatest(p.highest_seen_block, excluded.highest_seen_block),
             updated_at = excluded.updated_at",
    )
    .bind(network)
    .bind(height)
    .bind(contiguous.unwrap_or(current))
    .execute(conn)
    .await?;
    Ok(())
}

/// Last height of the unbroken run of canonical blocks from a height on, or from the lowest block.
async fn run_end(conn: &mut PgConnection, from: Option<i64>) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "select b.height from public.blocks b
         where b.canonical and b.height >= coalesce($1, (select min(height) from public.blocks where canonical))
             and not exists (select 1 from public.blocks n where n.canonical and n.height = b.height + 1)
         order by b.height limit 1",
    )
    .bind(from)
    .fetch_optional(conn)
    .await
}
