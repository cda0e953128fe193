//! What is said about the end of a run. Made of the ledger alone, so that every attempt says the same.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// Findings of a run that a message names one by one.
const FINDINGS: i64 = 10;

/// A message in the form that Standard Webhooks 1.0 recommends, with a text that chats show.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Message {
    #[serde(rename = "type")]
    kind: String,
    timestamp: String,
    text: String,
    data: Value,
}

/// To whom something is said.
#[derive(Debug)]
pub(super) enum Told {
    Alarm(Message),
    /// Its arrival is all that it says.
    Heartbeat,
}

#[derive(sqlx::FromRow)]
struct Ended {
    id: Uuid,
    workflow: String,
    unique_key: Option<String>,
    at: DateTime<Utc>,
    kind: String,
    error: Option<String>,
}

/// The message about the end that an event tells of, if that is in the ledger still.
pub(super) async fn of(control: &PgPool, event: i64) -> sqlx::Result<Option<Told>> {
    let Some(ended) = ended(control, event).await? else { return Ok(None) };
    let findings = findings(control, ended.id, event).await?;
    let of = ended.unique_key.as_ref().map(|key| format!(" of {key}")).unwrap_or_default();
    let (word, text) = match ended.kind.as_str() {
        "run.failed" => ("failed", format!("failed: {}", ended.error.as_deref().unwrap_or("no reason is known"))),
        _ if findings.is_empty() => return Ok(Some(Told::Heartbeat)),
        _ => ("findings", format!("found what should not be: {}", findings.iter().map(said).collect::<Vec<_>>().join("; "))),
    };
    Ok(Some(Told::Alarm(Message {
        kind: format!("{}.{word}", ended.workflow),
        timestamp: ended.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        text: format!("{}{of} {text}", ended.workflow),
        data: json!({
            "workflow": ended.workflow, "network": ended.unique_key, "runId": ended.id, "error": ended.error, "findings": findings,
        }),
    })))
}

/// That messages arrive.
pub(super) fn test(at: DateTime<Utc>) -> Message {
    Message {
        kind: "notify.test".into(),
        timestamp: at.to_rfc3339_opts(SecondsFormat::Secs, true),
        text: "alarms of Secondlayer Snapshots arrive here".into(),
        data: json!({}),
    }
}

fn said(finding: &Value) -> String {
    let problem = finding["data"]["problem"].as_str().or_else(|| finding["kind"].as_str());
    problem.unwrap_or_default().to_owned()
}

async fn ended(control: &PgPool, event: i64) -> sqlx::Result<Option<Ended>> {
    let sql = "select r.id, r.workflow, r.unique_key, e.at, e.kind, r.error
               from snapshots.event e join snapshots.run r on r.id = e.run_id where e.id = $1";
    sqlx::query_as(sql).bind(event).fetch_optional(control).await
}

/// What the run called an error of its own between its end before, if it was retried since, and this one.
async fn findings(control: &PgPool, run: Uuid, end: i64) -> sqlx::Result<Vec<Value>> {
    let sql = "select jsonb_build_object('kind', f.kind, 'data', f.data) from snapshots.event f
               where f.run_id = $1 and f.id < $2 and f.level = 'error' and f.kind !~ '^(step|group|run)[.]'
                 and f.id > coalesce((select max(p.id) from snapshots.event p
                                      where p.run_id = $1 and p.id < $2 and p.kind in ('run.failed', 'run.succeeded')), 0)
               order by f.id limit $3";
    sqlx::query_scalar(sql).bind(run).bind(end).bind(FINDINGS).fetch_all(control).await
}
