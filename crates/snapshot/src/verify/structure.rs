//! The quick half of a proof: counts, gaps, parent links, orphans, the tip. Rows are counted and joined, not read.

use sqlx::PgPool;

use super::Report;
use crate::chunk::Heights;
use crate::load::Selection;
use crate::manifest::{Manifest, Profile};

/// Checks that a restored database is one chain of the snapshot's size, up to its height and no further.
///
/// # Errors
/// The database's; what does not hold is in the report instead.
pub async fn structure(pool: &PgPool, manifest: &Manifest, selection: &Selection) -> sqlx::Result<Report> {
    if manifest.profile == Profile::Full {
        return super::everything::everything(pool, manifest, selection).await;
    }
    let mut report = Report::default();
    counts(pool, manifest, selection, &mut report).await?;
    if selection.has_table("blocks") {
        chain(pool, manifest, selection, &mut report).await?;
    }
    if ["blocks", "transactions", "events"].iter().all(|table| selection.has_table(table)) {
        orphans(pool, manifest, selection, &mut report).await?;
        super::nothing_above(pool, selection.height(manifest), &mut report).await?;
    }
    if selection.has_table("index_progress") {
        super::progress_says(pool, manifest, selection.height(manifest), &mut report).await?;
    }
    Ok(report)
}

/// Rows of each table; of a range of heights the manifest knows only whether it is all of a chunk, so those are not counted.
async fn counts(pool: &PgPool, manifest: &Manifest, selection: &Selection, report: &mut Report) -> sqlx::Result<()> {
    for shape in &manifest.shapes {
        if shape.height.is_some() && selection.heights.is_some() {
            continue;
        }
        let expected = if selection.has_table(&shape.name) { manifest.tables.get(&shape.name).map_or(0, |t| t.rows) } else { 0 };
        let sql = format!("select count(*) from public.{}", crate::columns::quote(&shape.name));
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await?;
        report.rows += found.unsigned_abs();
        let found = if found.unsigned_abs() == expected { Ok(()) } else { Err(format!("{found} rows")) };
        report.expect(format!("{} has {expected} rows", shape.name), found);
    }
    Ok(())
}

async fn chain(pool: &PgPool, manifest: &Manifest, selection: &Selection, report: &mut Report) -> sqlx::Result<()> {
    let wanted = selection.heights.unwrap_or(manifest.coverage);
    let range = Heights { from: wanted.from.max(manifest.coverage.from), to: wanted.to.min(manifest.coverage.to) };
    links(pool, manifest, range, report).await?;
    if range.to < manifest.block_height {
        return Ok(());
    }
    let tip: Option<String> = sqlx::query_scalar("select hash from public.blocks where height = $1")
        .bind(manifest.block_height.cast_signed())
        .fetch_optional(pool)
        .await?;
    let found = if tip.as_ref() == Some(&manifest.block_hash) { Ok(()) } else { Err(format!("{tip:?}")) };
    report.expect(format!("block {} is {}", manifest.block_height, manifest.block_hash), found);
    Ok(())
}

/// Gaps and parent links. A public snapshot has no fault in them; one of everything repeats those of its source.
pub(super) async fn links(pool: &PgPool, manifest: &Manifest, range: Heights, report: &mut Report) -> sqlx::Result<()> {
    let (blocks, broken): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where below <> parent_hash)
         from (select parent_hash, lag(hash) over (order by height) as below from public.blocks where canonical and height between $1 and $2) b",
    )
    .bind(range.from.cast_signed())
    .bind(range.to.cast_signed())
    .fetch_one(pool)
    .await?;
    let missing = range.len().cast_signed() - blocks;
    let but = |allowed: u64| if allowed > 0 { format!(", but the {allowed} of the source") } else { String::new() };
    let (gaps, faults) = (manifest.audit.gaps, manifest.audit.broken_links);
    let holds = missing <= gaps.cast_signed();
    let found = if holds { Ok(()) } else { Err(format!("{missing} blocks are missing or not canonical")) };
    report.expect(format!("no gap in the blocks {range}{}", but(gaps)), found);
    let found = if broken.unsigned_abs() <= faults { Ok(()) } else { Err(format!("{broken} do not")) };
    report.expect(format!("each block names the one below as its parent{}", but(faults)), found);
    Ok(())
}

/// A genuine database may hold rows of lost forks, which its snapshots repeat and count: no more of them than that.
async fn orphans(pool: &PgPool, manifest: &Manifest, selection: &Selection, report: &mut Report) -> sqlx::Result<()> {
    let orphans: i64 = sqlx::query_scalar(
        "select (select count(*) from public.transactions t where not exists (select from public.blocks b where b.height = t.block_height))
              + (select count(*) from public.events e where not exists (select from public.transactions t where t.tx_id = e.tx_id))",
    )
    .fetch_one(pool)
    .await?;
    // A transaction that was mined again stands at another height than its events, so a part may have the one without the other.
    let apart = if selection.heights.is_some() { manifest.audit.height_mismatches } else { 0 };
    let allowed = manifest.audit.orphan_rows + apart;
    let found = if orphans.unsigned_abs() <= allowed { Ok(()) } else { Err(format!("{orphans} are")) };
    report.expect(format!("no row is an orphan but the {allowed} of the source"), found);
    Ok(())
}
