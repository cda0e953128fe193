//! `GET /status`: the original's body, with the state of the snapshots beside it. `GET /health`, as the original's.
//!
//! Everybody may read it; what the last run was and what went wrong in a tenant's view is for those inside.
//! Parts that a database does not have (an older schema, a chain restored without tenants) count nothing, as in the original.

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use chrono::{NaiveDateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use workflows::status::{self, ChainFigures, Freshness, State as Word, StatusError};

use crate::auth::Insider;
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/status", get(show)).route("/health", get(health))
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn show(State(state): State<ApiState>, Extension(Insider(inside)): Extension<Insider>) -> Result<Json<Value>, Problem> {
    let indexed = &state.services.indexed;
    let progress = index_progress(indexed).await?;
    let mut snapshots = Vec::new();
    for one in &progress {
        let network = one["network"].as_str().unwrap_or_default();
        let found = status::find(&state.services, network).await.map_err(|error| untold(&error))?;
        snapshots.push(if inside { found } else { found.public() });
    }
    let queue = counts(indexed, "jobs", &["pending", "processing", "completed", "failed"]).await?;
    let streams = counts(indexed, "streams", &["inactive", "active", "paused", "failed"]).await?;
    let views = views(indexed, inside).await?;
    let network = state.services.settings.network.clone();
    let network = network.or_else(|| progress.first().and_then(|one| one["network"].as_str().map(str::to_owned)));
    let chain = match snapshots.first() {
        Some(one) => one.chain.clone(),
        None => status::chain(&state.services).await.map_err(|error| untold(&error))?,
    };
    Ok(Json(json!({
        "status": health_of(&snapshots, &chain),
        "network": network,
        "database": { "status": "ok" },
        "queue": queue,
        "chainTip": chain_tip(&progress),
        "integrity": integrity(&chain),
        "gaps": chain.gaps,
        "totalMissingBlocks": chain.missing_blocks,
        "blocksReceivedOutOfOrder": 0,
        "activeStreams": streams["active"],
        "streams": streams,
        "activeViews": views.iter().filter(|view| view["status"] == "active").count(),
        "views": views,
        "recentDeliveries": recent_deliveries(indexed).await?,
        "indexProgress": progress,
        "snapshots": snapshots,
        "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
    })))
}

fn integrity(chain: &ChainFigures) -> &'static str {
    match chain.tip {
        None => "empty",
        Some(_) if chain.missing_blocks == 0 => "complete",
        Some(_) => "gaps_detected",
    }
}

/// The original's word while all is well; it follows the worst state of all networks.
fn health_of(snapshots: &[Freshness], chain: &ChainFigures) -> &'static str {
    let fresh = snapshots.iter().all(|one| one.state == Word::Fresh);
    if fresh && chain.tip.is_some() { "healthy" } else { "degraded" }
}

fn untold(error: &StatusError) -> Problem {
    Problem::unavailable("the state of the snapshots cannot be told", error)
}

/// The original asks a public node; the highest block that our own node has shown is known without.
fn chain_tip(progress: &[Value]) -> Option<i64> {
    progress.iter().filter_map(|one| one["highestSeenBlock"].as_i64()).max()
}

async fn index_progress(db: &PgPool) -> sqlx::Result<Vec<Value>> {
    let sql = "select network, last_indexed_block, last_contiguous_block, highest_seen_block, updated_at
               from public.index_progress order by network";
    let rows: Vec<(String, i64, i64, i64, NaiveDateTime)> = sqlx::query_as(sql).fetch_all(db).await?;
    let one = |(network, indexed, contiguous, seen, at): (String, i64, i64, i64, NaiveDateTime)| {
        json!({
            "network": network, "lastIndexedBlock": indexed, "lastContiguousBlock": contiguous, "highestSeenBlock": seen,
            "updatedAt": at.and_utc().to_rfc3339_opts(SecondsFormat::Millis, true),
        })
    };
    Ok(rows.into_iter().map(one).collect())
}

async fn exists(db: &PgPool, table: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select to_regclass('public.' || quote_ident($1)) is not null").bind(table).fetch_one(db).await
}

/// Rows of a table by status, with their total.
async fn counts(db: &PgPool, table: &'static str, statuses: &[&str]) -> sqlx::Result<Value> {
    let mut counted: Map<String, Value> = statuses.iter().map(|status| ((*status).to_owned(), json!(0))).collect();
    let mut total = 0;
    if exists(db, table).await? {
        let sql = format!("select status::text, count(*) from public.{table} group by 1");
        let rows: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(db).await?;
        for (status, count) in rows {
            total += count;
            counted.insert(status, json!(count));
        }
    }
    counted.insert("total".into(), json!(total));
    Ok(Value::Object(counted))
}

async fn recent_deliveries(db: &PgPool) -> sqlx::Result<i64> {
    if !exists(db, "deliveries").await? {
        return Ok(0);
    }
    let sql = "select count(*) from public.deliveries where created_at >= now() - interval '24 hours'";
    sqlx::query_scalar(sql).fetch_one(db).await
}

async fn views(db: &PgPool, inside: bool) -> sqlx::Result<Vec<Value>> {
    if !exists(db, "views").await? {
        return Ok(Vec::new());
    }
    let sql = "select to_jsonb(v) from public.views v order by v.name";
    let rows: Vec<Value> = sqlx::query_scalar(sql).fetch_all(db).await?;
    Ok(rows.iter().map(|row| view(row, inside)).collect())
}

/// What the original shows of a view: nothing of its definition, its handler or its owner.
fn view(row: &Value, inside: bool) -> Value {
    let number = |name: &str| row[name].as_i64().unwrap_or_default();
    let (processed, errors) = (number("total_processed"), number("total_errors"));
    let rate = if processed > 0 { (errors as f64 / processed as f64 * 1e4).round() / 1e4 } else { 0.0 };
    json!({
        "name": row["name"], "status": row["status"], "lastProcessedBlock": number("last_processed_block"),
        "totalProcessed": processed, "totalErrors": errors, "errorRate": rate, "lastError": inside.then(|| &row["last_error"]),
    })
}
