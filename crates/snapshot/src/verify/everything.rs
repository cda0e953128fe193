//! The proof of a restored snapshot of the `full` profile: every row is there, its blocks are one chain as far as the source's were, and it
//! ends at the same block. Orphans are the foreign keys' matter, which the restore validates.
//!
//! Rows of tables that others wrote have no order of ours, so their digests are checked chunk by chunk as they are loaded; here
//! they are counted. Rows that the restore itself took away (see `load::settle`) are in its ledger, and are counted as such.

use sqlx::PgPool;

use super::Report;
use crate::load::{Selection, removed};
use crate::manifest::Manifest;

/// Checks a database against a manifest of the `full` profile.
pub(super) async fn everything(pool: &PgPool, manifest: &Manifest, selection: &Selection) -> sqlx::Result<Report> {
    let mut report = Report::default();
    let removed = removed(pool).await?;
    for shape in &manifest.shapes {
        let restored = if selection.has_table(&shape.name) { manifest.tables.get(&shape.name).map_or(0, |t| t.rows) } else { 0 };
        let sql = format!("select count(*) from {}", shape.qualified());
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await?;
        let found = found.unsigned_abs();
        report.rows += found;
        let expected = restored.saturating_sub(removed.get(&shape.qualified()).copied().unwrap_or_default());
        let holds = found == expected;
        report.expect(format!("{} has {expected} rows", shape.name), if holds { Ok(()) } else { Err(format!("{found} rows")) });
    }
    if selection.has_table("blocks") {
        let tip: Option<(i64, String)> =
            sqlx::query_as("select height, hash from public.blocks where canonical order by height desc limit 1")
                .fetch_optional(pool)
                .await?;
        let expected = (manifest.block_height.cast_signed(), manifest.block_hash.clone());
        let found = if tip.as_ref() == Some(&expected) { Ok(()) } else { Err(format!("{tip:?}")) };
        report.expect(format!("the highest block is {} {}", expected.0, expected.1), found);
        super::structure::links(pool, manifest, manifest.coverage, &mut report).await?;
    }
    Ok(report)
}
