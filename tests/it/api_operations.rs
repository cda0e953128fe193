//! What operators do over HTTP: retry, pause, schedules; that it is written down who did it; and that what makes no sense is
//! refused with the right status and changes nothing.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{ServiceProcess, Site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

struct Answer {
    status: u16,
    body: Value,
    replayed: bool,
    location: Option<String>,
}

async fn ask(service: &ServiceProcess, method: Method, path: &str, body: &str, key: Option<&str>) -> Answer {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", service.url)).body(body.to_owned());
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (kind, location, replayed) = (header("content-type"), header("location"), header("idempotency-replayed").is_some());
    if status >= 400 {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{path}");
    }
    Answer { status, body: answer.json().await.unwrap(), replayed, location }
}

async fn post(service: &ServiceProcess, path: &str, body: Value) -> Answer {
    ask(service, Method::POST, path, &body.to_string(), None).await
}

/// Everything that an act could change, as one text.
async fn ledger(pool: &PgPool) -> String {
    let sql = "select concat_ws('|', (select string_agg(r::text, ';' order by id) from snapshots.run r), \
        (select string_agg(s::text, ';' order by name) from snapshots.schedule s), \
        (select string_agg(p::text, ';' order by name) from snapshots.pause p), \
        (select string_agg(a::text, ';' order by id) from snapshots.audit_log a), \
        (select string_agg(k::text, ';') from snapshots.idempotency_key k))";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// A chain with a gap: every snapshot of it fails.
async fn broken_site() -> (Site, PgPool) {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    sqlx::query("update public.blocks set canonical = false where height = 50").execute(&pool).await.unwrap();
    (site, pool)
}

async fn mend(pool: &PgPool) {
    sqlx::query("update public.blocks set canonical = true where height = 50").execute(pool).await.unwrap();
}

async fn failed_run(service: &ServiceProcess) -> String {
    let run = service.start_run().await;
    assert_eq!(service.ended(&run).await["state"], "failed");
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_runs_are_retried_one_by_one_and_all_that_match_on_behalf_of_who_asked() {
    let (site, pool) = broken_site().await;
    let service = site.serve().await;
    let runs = [failed_run(&service).await, failed_run(&service).await];
    mend(&pool).await;

    // One, twice with the same key: it goes on once.
    let path = format!("/runs/{}/retry", runs[0]);
    let first = ask(&service, Method::POST, &path, "{\"from\":\"failed-step\"}", Some("k1")).await;
    assert_eq!((first.status, first.replayed, &first.body["runId"]), (202, false, &json!(runs[0])), "{}", first.body);
    let again = ask(&service, Method::POST, &path, "{\"from\":\"failed-step\"}", Some("k1")).await;
    assert_eq!((again.status, again.replayed, &again.body["runId"]), (202, true, &json!(runs[0])));
    let other = ask(&service, Method::POST, &path, "{\"from\":\"start\"}", Some("k1")).await;
    assert_eq!((other.status, &other.body["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    assert_eq!(service.ended(&runs[0]).await["state"], "succeeded");

    // All that match: the other one.
    let body = json!({ "filter": { "workflow": "snapshot", "text": "GAPS" } });
    let bulk = post(&service, "/api/runs/retry", body).await;
    assert_eq!(bulk.status, 202, "{}", bulk.body);
    let ended = service.ended(bulk.body["runId"].as_str().unwrap()).await;
    assert_eq!((&ended["workflow"], &ended["result"]["retried"]), (&json!("retry_runs"), &json!(1)), "{ended:#}");
    assert_eq!(ended["result"]["refused"], 0);
    let second = service.ended(&runs[1]).await;
    assert_eq!(second["state"], "succeeded", "{second:#}");
    let log = service.json(&format!("/audit-log?subject={}", runs[1])).await;
    let acts: Vec<(&str, &str)> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["act"].as_str().unwrap(), entry["actor"].as_str().unwrap()))
        .collect();
    assert_eq!(acts, [("run.retry", "local"), ("run.start", "local")]);

    // From the start: a new run.
    let new = post(&service, &format!("/runs/{}/retry", runs[0]), json!({ "from": "start" })).await;
    assert_eq!(new.status, 202, "{}", new.body);
    let new_run = new.body["runId"].as_str().unwrap();
    assert_eq!(new.location, Some(format!("/runs/{new_run}")));
    let ended = service.ended(new_run).await;
    assert_eq!((&ended["state"], &ended["parentRunId"]), (&json!("succeeded"), &json!(runs[0])));

    let page = service.json("/audit-log?limit=2").await;
    assert_eq!((page["data"].as_array().unwrap().len(), &page["hasMore"]), (2, &json!(true)));
    let older = service.json(&format!("/audit-log?cursor={}", page["nextCursor"].as_str().unwrap())).await;
    assert!(older["data"][0]["id"].as_i64() < page["data"][1]["id"].as_i64());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_says_so_and_waits_and_a_schedule_is_changed_run_and_paused() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let paused = post(&service, "/workflows/snapshot/pause", json!({ "reason": "the disk is changed" })).await;
    assert_eq!(paused.status, 200, "{}", paused.body);
    assert_eq!(post(&service, "/queues/cpu/pause", json!({ "reason": "too hot" })).await.status, 200);
    let run = service.start_run().await;
    let state = async || service.json(&format!("/runs/{run}")).await["state"].clone();
    wait_until(PATIENCE, "the run is seen to be paused", async || state().await == "paused").await;
    let listed = service.json("/workflows").await;
    let snapshot = listed["data"].as_array().unwrap().iter().find(|row| row["name"] == "snapshot").unwrap();
    assert_eq!((&snapshot["pause"]["reason"], &snapshot["pause"]["actor"]), (&json!("the disk is changed"), &json!("local")));
    let queues = service.json("/queues").await;
    assert_eq!(queues["data"].as_array().unwrap().iter().filter(|row| !row["pause"].is_null()).count(), 1);
    for path in ["/workflows/snapshot/resume", "/queues/cpu/resume"] {
        assert_eq!(post(&service, path, json!({})).await.status, 200);
    }
    assert_eq!(service.ended(&run).await["state"], "succeeded");

    let patch = async |body: Value| {
        let answer = ask(&service, Method::PATCH, "/schedules/nightly-snapshot", &body.to_string(), None).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let off = service.json("/schedules").await;
    let nightly = off["data"].as_array().unwrap().iter().find(|row| row["name"] == "nightly-snapshot").unwrap();
    assert_eq!((&nightly["pausedBy"], &nightly["nextFires"]), (&json!("configuration"), &json!([])));
    assert_eq!(patch(json!({ "paused": false })).await["nextFires"].as_array().unwrap().len(), 5);
    let changed = patch(json!({ "cron": "30 3 * * 1-5", "timezone": "Europe/Zurich", "overlap": "queue", "priority": 7 })).await;
    assert_eq!(
        (&changed["cron"], &changed["overlap"], &changed["priority"]),
        (&json!("30 3 * * 1-5"), &json!("queue"), &json!(7))
    );
    assert_eq!(service.json("/schedules/nightly-snapshot").await["timezone"], "Europe/Zurich");
    let paused = patch(json!({ "paused": true, "reason": "holidays" })).await;
    assert_eq!((&paused["pauseReason"], &paused["nextFires"]), (&json!("holidays"), &json!([])));

    let run = async || ask(&service, Method::POST, "/schedules/nightly-snapshot/run", "", Some("by hand")).await;
    let started = run().await;
    assert_eq!((started.status, started.replayed), (202, false), "{}", started.body);
    assert!(run().await.replayed);
    let ended = service.ended(started.body["runId"].as_str().unwrap()).await;
    assert_eq!(
        (&ended["state"], &ended["schedule"], &ended["priority"]),
        (&json!("succeeded"), &json!("nightly-snapshot"), &json!(7))
    );

    let workers = service.json("/workers").await;
    let worker = &workers["data"][0];
    assert_eq!(
        (&worker["state"], &worker["roles"]),
        (&json!("alive"), &json!(["api", "worker", "scheduler", "deliver", "ingest"]))
    );
}

/// What makes no sense whatever the runs are: method, path, body; status and code of the answer.
const NONSENSE: &[(Method, &str, &str, u16, &str)] = &[
    (Method::PATCH, NIGHTLY, r#"{"cron":"every night"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"cron":"0 2 1 * 1"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"cron":"0 2 30 2 *"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"timezone":"Mars/Olympus"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"overlap":"perhaps"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"priority":1001}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"params":{"network":"testnet"}}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"params":{"depth":1}}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"corn":"0 2 * * *"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"cron":"0 3 * * *","paused":false}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"paused":"yes","reason":"x"}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"paused":true}"#, 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, r#"{"paused":true,"reason":"again"}"#, 409, "ALREADY_PAUSED"),
    (Method::PATCH, NIGHTLY, "", 422, "VALIDATION_ERROR"),
    (Method::PATCH, NIGHTLY, "{", 400, "INVALID_JSON"),
    (Method::PATCH, "/schedules/weekly", r#"{"paused":false}"#, 404, "SCHEDULE_NOT_FOUND"),
    (Method::GET, "/schedules/weekly", "", 404, "SCHEDULE_NOT_FOUND"),
    (Method::GET, "/schedules/%00", "", 404, "SCHEDULE_NOT_FOUND"),
    (Method::POST, "/schedules/weekly/run", "", 404, "SCHEDULE_NOT_FOUND"),
    (Method::POST, "/schedules/nightly-snapshot/run", "", 409, "ALREADY_RUNNING"),
    (Method::POST, "/schedules/nightly-snapshot/run", r#"{"network":"mainnet"}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/nightly/runs", "{}", 404, "WORKFLOW_NOT_FOUND"),
    (Method::POST, "/workflows/snapshot/runs", "{}", 409, "ALREADY_RUNNING"),
    (Method::POST, "/workflows/snapshot/runs", "{", 400, "INVALID_JSON"),
    (Method::POST, "/workflows/snapshot/runs", "[]", 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/nothing/pause", r#"{"reason":"x"}"#, 404, "WORKFLOW_NOT_FOUND"),
    (Method::POST, "/workflows/snapshot/pause", "{}", 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/snapshot/pause", r#"{"reason":" "}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/snapshot/pause", r#"{"reason":"a\u0000b"}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/snapshot/pause", r#"{"because":"x"}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/snapshot/resume", "", 409, "NOT_PAUSED"),
    (Method::POST, "/workflows/%00/resume", "", 404, "WORKFLOW_NOT_FOUND"),
    (Method::POST, "/queues/io/pause", r#"{"reason":"x"}"#, 409, "ALREADY_PAUSED"),
    (Method::POST, "/queues/gpu/pause", r#"{"reason":"x"}"#, 404, "QUEUE_NOT_FOUND"),
    (Method::POST, "/runs/none/retry", "", 404, "RUN_NOT_FOUND"),
    (Method::POST, "/runs/retry", "{}", 422, "VALIDATION_ERROR"),
    (Method::POST, "/runs/retry", r#"{"filter":{"workflow":"snapshot","text":"a\u0000b"}}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/scrub/runs", r#"{"network":"a\u0000b"}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/prune/runs", r#"{"network":"a\u0000b"}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/workflows/retract/runs", r#"{"id":"a\u0000b","reason":"x"}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/runs/retry", r#"{"filter":{"workflow":"nothing"}}"#, 422, "VALIDATION_ERROR"),
    (Method::POST, "/runs/retry", r#"{"filter":{"workflow":"snapshot","states":["running"]}}"#, 422, "VALIDATION_ERROR"),
    (Method::GET, "/runs?state=broken", "", 400, "VALIDATION_ERROR"),
    (Method::GET, "/runs?text=%00", "", 400, "VALIDATION_ERROR"),
    (Method::GET, "/audit-log?subject=%00", "", 400, "VALIDATION_ERROR"),
    (Method::GET, "/audit-log?cursor=61", "", 400, "VALIDATION_ERROR"),
    (Method::GET, "/runs/events?run=none", "", 404, "RUN_NOT_FOUND"),
    (Method::DELETE, NIGHTLY, "", 405, "METHOD_NOT_ALLOWED"),
];

const NIGHTLY: &str = "/schedules/nightly-snapshot";

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_its_status_and_changes_nothing() {
    let (site, pool) = broken_site().await;
    let service = site.serve().await;
    let failed = failed_run(&service).await;
    assert_eq!(post(&service, "/queues/io/pause", json!({ "reason": "a test" })).await.status, 200);
    let keyed = ask(&service, Method::POST, "/workflows/snapshot/runs", "{}", Some("once")).await;
    let unfinished = keyed.body["runId"].as_str().unwrap().to_owned();
    let path = format!("/runs/{unfinished}");
    // The sweep makes the word true: its first step may not begin.
    wait_until(PATIENCE, "the run is shown as paused", async || service.json(&path).await["state"] == "paused").await;
    let before = ledger(&pool).await;

    let nobody = "/runs/00000000-0000-0000-0000-000000000000/retry";
    let (cancel, retry) = (format!("/runs/{failed}/cancel"), format!("/runs/{failed}/retry"));
    let too_soon = format!("/runs/{unfinished}/retry");
    let long = format!("{{\"reason\":\"{}\"}}", "a".repeat(501));
    let of_these = [
        (Method::POST, cancel.as_str(), "", 409, "ALREADY_FINISHED"),
        (Method::POST, too_soon.as_str(), "", 409, "NOT_FINISHED"),
        (Method::POST, retry.as_str(), "", 409, "ALREADY_RUNNING"),
        (Method::POST, retry.as_str(), r#"{"from":"scratch"}"#, 422, "VALIDATION_ERROR"),
        (Method::POST, retry.as_str(), "{", 400, "INVALID_JSON"),
        (Method::POST, nobody, "", 404, "RUN_NOT_FOUND"),
        (Method::POST, "/workflows/snapshot/pause", long.as_str(), 422, "VALIDATION_ERROR"),
    ];
    for (method, path, body, status, code) in NONSENSE.iter().chain(&of_these) {
        let answer = ask(&service, method.clone(), path, body, None).await;
        let found = (answer.status, answer.body["code"].as_str().unwrap());
        assert_eq!(found, (*status, *code), "{method} {path} {body}: {}", answer.body);
    }
    for key in ["", &"k".repeat(256)] {
        let answer = ask(&service, Method::POST, "/workflows/snapshot/runs", "{}", Some(key)).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
    let other = ask(&service, Method::POST, "/workflows/snapshot/runs", "{\"network\":\"mainnet\"}", Some("once")).await;
    assert_eq!((other.status, &other.body["runId"]), (422, &json!(unfinished)), "{}", other.body);
    let query = ask(&service, Method::POST, "/workflows/snapshot/runs?network=testnet", "{}", Some("once")).await;
    assert_eq!((query.status, query.replayed), (409, false), "another query is another request: {}", query.body);
    let same = ask(&service, Method::POST, "/api/workflows/snapshot/runs", "{}", Some("once")).await;
    assert_eq!((same.status, same.replayed, &same.body["runId"]), (202, true, &json!(unfinished)), "{}", same.body);
    assert_eq!(ledger(&pool).await, before, "something was changed by what was refused");
}
