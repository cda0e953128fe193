//! After the rows: what `index_progress` says, and statistics.

use futures::{StreamExt, TryStreamExt, stream};

use super::{Job, LoadError};
use crate::columns::TableShape;

/// The snapshot's own row says its height already; a restore of lower heights must not promise more than is there.
pub(super) async fn progress(job: &Job<'_>) -> Result<(), LoadError> {
    let selection = &job.options.selection;
    if selection.heights.is_none() || !selection.has_table("index_progress") {
        return Ok(());
    }
    let sql = "update public.index_progress set last_indexed_block = $1, last_contiguous_block = $1, highest_seen_block = $1";
    let height = selection.height(&job.opened.manifest).cast_signed();
    sqlx::query(sql).bind(height).execute(job.pool).await.map_err(LoadError::at("set index_progress"))?;
    Ok(())
}

/// Every table of the snapshot. Frozen rows need statistics only.
pub(super) async fn vacuum(job: &Job<'_>) -> Result<(), LoadError> {
    let manifest = &job.opened.manifest;
    let mut tables: Vec<&TableShape> = manifest.shapes.iter().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(manifest.tables.get(&table.name).map_or(0, |totals| totals.bytes)));
    let total = tables.len() as u64;
    let verb = if job.options.fast { "analyze" } else { "vacuum (analyze)" };
    let vacuuming = stream::iter(tables).map(|table| async move {
        let sql = format!("{verb} {}", table.qualified());
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(job.pool).await;
        done.map_err(LoadError::at(format!("{verb} {}", table.name))).map(|_| ())
    });
    let mut vacuuming = vacuuming.buffer_unordered(job.options.jobs.max(1));
    let mut done = 0;
    while vacuuming.try_next().await?.is_some() {
        done += 1;
        job.watch.progress(done, total, "tables");
    }
    Ok(())
}
