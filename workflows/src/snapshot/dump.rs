//! Step `dump`, one child per range: cuts the range's rows of all chain tables in one transaction and stores them.
//!
//! After each table the child saves what it has stored; an attempt after a crash goes on behind it, if the range's blocks
//! are still the same, so that a chunk that was uploaded is not cut again.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::audit::Audit;
use snapshot::chunk::{Chunk, Heights};
use snapshot::columns::{CHAIN_TABLES, TableShape};
use snapshot::cut::{ChainLink, CutError, Inspection, Target, begin_export, cut_query, cut_table, digest_rows, select_all};
use snapshot::fingerprint;
use snapshot::grid::GridRange;
use sqlx::{PgConnection, PgPool};

use super::plan::{DumpJob, Plan};
use crate::figures::Phase;
use crate::services::Services;
use crate::step_error::classify;

/// What one child stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Dumped {
    /// Chunks in load order.
    pub(super) chunks: Vec<Chunk>,
    /// Counts over their rows.
    pub(super) audit: Audit,
    /// Ends of the range; empty for the small tables.
    pub(super) link: ChainLink,
    /// The range; none for the small tables.
    pub(super) range: Option<GridRange>,
    /// Digest of the identity of its blocks.
    pub(super) chain_sha256: String,
}

pub(super) async fn run(ctx: Ctx<Services>, job: DumpJob) -> Result<Dumped, StepError> {
    let reading = ctx.services().reading.clone();
    reading.run(|pool| dump(ctx, pool, job)).await
}

async fn dump(ctx: Ctx<Services>, pool: PgPool, job: DumpJob) -> Result<Dumped, StepError> {
    let plan: Plan = ctx.output("plan").await?;
    let mut conn = pool.acquire().await.map_err(classify)?;
    let mut tx = begin_export(&mut conn).await.map_err(classify)?;
    match job {
        DumpJob::Range(range) => dump_range(&ctx, &mut tx, &plan, range).await,
        DumpJob::SmallTables => dump_small_tables(&ctx, &mut tx, &plan).await,
    }
}

async fn dump_range(ctx: &Ctx<Services>, conn: &mut PgConnection, plan: &Plan, range: GridRange) -> Result<Dumped, StepError> {
    let mut done = finished(ctx, conn, plan, range.heights).await?;
    let mut inspection = Inspection::resume(done.audit, done.link.clone());
    if !done.chunks.is_empty() {
        inspection.recall(conn, range.heights).await.map_err(classify)?;
    }
    let tables = CHAIN_TABLES.len() as u64;
    for (position, table) in CHAIN_TABLES.iter().enumerate() {
        if done.chunks.iter().any(|chunk| chunk.table == table.name) {
            continue;
        }
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        let target = Target {
            store: &ctx.services().store,
            shape: shape(plan, table.name)?,
            sealed: range.sealed,
            likely_stored: plan.recut.contains(&range.heights),
        };
        let chunks = cut_table(conn, target, &plan.parts(table.name, range.heights), &mut inspection).await.map_err(classify)?;
        for chunk in &chunks {
            Phase::Read.count(chunk.raw_bytes);
            Phase::Stored.count(chunk.bytes);
        }
        done.chunks.extend(chunks);
        done.audit = inspection.audit;
        done.link = inspection.link.clone();
        ctx.progress(position as u64 + 1, tables, "tables");
        ctx.save_state(&done).await?;
    }
    done.chain_sha256 = fingerprint::chain_digest(conn, range.heights).await.map_err(classify)?;
    done.range = Some(range);
    Ok(done)
}

/// What an earlier attempt stored, if the rows it was cut from are still there unchanged. They are read again, but neither
/// compressed nor stored.
async fn finished(ctx: &Ctx<Services>, conn: &mut PgConnection, plan: &Plan, heights: Heights) -> Result<Dumped, StepError> {
    let Some(done) = ctx.state::<Dumped>().await? else { return Ok(Dumped::default()) };
    for chunk in &done.chunks {
        let now = digest_rows(conn, shape(plan, &chunk.table)?, chunk.heights).await.map_err(classify)?;
        if now.content_sha256 != chunk.content_sha256 {
            tracing::warn!(%heights, "rows changed since the last attempt, cutting the range from the start");
            return Ok(Dumped::default());
        }
    }
    Ok(done)
}

async fn dump_small_tables(ctx: &Ctx<Services>, conn: &mut PgConnection, plan: &Plan) -> Result<Dumped, StepError> {
    let mut chunks = Vec::new();
    for shape in plan.shapes.iter().filter(|shape| shape.height.is_none()) {
        let target = Target { store: &ctx.services().store, shape, sealed: false, likely_stored: false };
        let query = match shape.name.as_str() {
            "index_progress" => progress_query(shape, plan),
            _ => select_all(shape),
        };
        chunks.push(cut_query(conn, target, &query).await.map_err(classify)?);
    }
    Ok(Dumped { chunks, ..Dumped::default() })
}

/// The progress row as the restored database needs it: all three heights are the snapshot's (spec §7), and only the
/// snapshot's network is in it.
fn progress_query(shape: &TableShape, plan: &Plan) -> String {
    let heights = ["last_indexed_block", "last_contiguous_block", "highest_seen_block"];
    let column = |column: &String| match column.as_str() {
        name if heights.contains(&name) => format!("{}::bigint", plan.facts.height),
        name => snapshot::columns::quote(name),
    };
    let columns: Vec<String> = shape.columns.iter().map(column).collect();
    let network = plan.network.replace('\'', "''");
    format!("select {} from public.index_progress where network = '{network}'", columns.join(", "))
}

fn shape<'a>(plan: &'a Plan, table: &str) -> Result<&'a TableShape, StepError> {
    let missing = || CutError::Read { table: table.to_owned(), source: sqlx::Error::RowNotFound };
    plan.shapes.iter().find(|shape| shape.name == table).ok_or_else(|| StepError::fail(missing()))
}
