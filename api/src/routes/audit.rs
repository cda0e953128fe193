//! `GET /audit-log`: who did what, newest first.

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use engine::{AuditEntry, AuditFilter};
use serde::Deserialize;

use crate::page::{self, Limit, Page};
use crate::problem::Problem;
use crate::state::ApiState;

pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/audit-log", get(list))
}

#[derive(Deserialize)]
struct ListQuery {
    /// A run's id, `workflow <name>`, `queue <name>`, `schedule <name>`.
    subject: Option<String>,
    actor: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Json<Page<AuditEntry>>, Problem> {
    let limit = Limit::of(query.limit)?;
    if [&query.subject, &query.actor].into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(Problem::bad_request("VALIDATION_ERROR", "no subject and no actor has this character in its name"));
    }
    let before = query.cursor.as_deref().map(before).transpose()?;
    let filter = AuditFilter { subject: query.subject, actor: query.actor, before };
    let entries = state.engine.audit_log(&filter, u32::try_from(limit.and_one_more()).unwrap_or(u32::MAX)).await?;
    Ok(Json(Page::of(entries, limit, |entry| format!("audit/{}", entry.id))))
}

fn before(cursor: &str) -> Result<i64, Problem> {
    let bad = || Problem::bad_request("VALIDATION_ERROR", "this cursor is not one that GET /audit-log gave out");
    let (list, id) = page::place(cursor)?;
    id.parse().ok().filter(|_| list == "audit").ok_or_else(bad)
}
