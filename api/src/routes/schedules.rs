//! `GET /schedules`, `GET` and `PATCH /schedules/{name}`, `POST /schedules/{name}/run`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use engine::{Schedule, ScheduleChange};
use serde::Serialize;
use serde_json::{Value, json};

use crate::body::{self, unfit};
use crate::once::{Asked, accepted};
use crate::problem::Problem;
use crate::state::ApiState;

/// Future ticks that are shown.
const NEXT: usize = 5;

pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/schedules", get(list))
        .route("/schedules/{name}", get(show).patch(change))
        .route("/schedules/{name}/run", post(run))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    schedule: Schedule,
    /// When it fires next; never, while it is paused.
    next_fires: Vec<DateTime<Utc>>,
}

impl From<Schedule> for Shown {
    fn from(schedule: Schedule) -> Self {
        let next = if schedule.paused_at.is_some() { Ok(Vec::new()) } else { schedule.next_fires(Utc::now(), NEXT) };
        // An expression that this version does not read any more never fires.
        Self { next_fires: next.unwrap_or_default(), schedule }
    }
}

async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let schedules: Vec<Shown> = state.engine.schedules().await?.into_iter().map(Shown::from).collect();
    Ok(Json(json!({ "data": schedules })))
}

async fn show(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Shown>, Problem> {
    Ok(Json(state.engine.schedule(&plain(name)?).await?.into()))
}

/// The database cannot hold every character; what it cannot is no schedule's name.
fn plain(name: String) -> Result<String, Problem> {
    let good = |c: char| c.is_ascii_graphic() || c == ' ';
    if name.chars().all(good) { Ok(name) } else { Err(Problem::not_found("SCHEDULE_NOT_FOUND", "there is no such schedule")) }
}

/// Either pauses or resumes (`{"paused": true, "reason": …}`, `{"paused": false}`), or changes what the schedule is.
async fn change(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    asked: Asked,
    body: Bytes,
) -> Result<Json<Shown>, Problem> {
    let name = plain(name)?;
    let Value::Object(mut wanted) = body::value(&body)? else { return Err(unfit("send an object of what to change")) };
    let (paused, reason) = (wanted.remove("paused"), wanted.remove("reason"));
    if wanted.is_empty() == paused.is_none() {
        return Err(unfit("send either `paused`, or what to change: cron, timezone, overlap, catchup, params, priority"));
    }
    let Some(paused) = paused else {
        if reason.is_some() {
            return Err(unfit("a reason goes with `paused`"));
        }
        let change: ScheduleChange = serde_json::from_value(Value::Object(wanted)).map_err(|error| unfit(error.to_string()))?;
        return Ok(Json(state.engine.change_schedule(&name, &change, &asked.actor).await?.into()));
    };
    let schedule = match paused {
        Value::Bool(true) => {
            let reason = body::reason(reason.as_ref().and_then(Value::as_str))?;
            state.engine.pause_schedule(&name, &reason, &asked.actor).await?
        }
        Value::Bool(false) => state.engine.resume_schedule(&name, &asked.actor).await?,
        _ => return Err(unfit("`paused` is true or false")),
    };
    Ok(Json(schedule.into()))
}

async fn run(State(state): State<ApiState>, Path(name): Path<String>, asked: Asked, body: Bytes) -> Result<Response, Problem> {
    if !matches!(body::value(&body)?, Value::Null) && body::value(&body)? != json!({}) {
        return Err(unfit("a schedule runs with its own parameters: send no body"));
    }
    let started = state.engine.run_schedule(&plain(name)?, asked.key(&body).as_ref(), &asked.actor).await?;
    Ok(accepted(started, json!({ "state": "queued" })))
}
