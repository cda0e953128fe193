//! `GET /runs/events`: what happens, as it happens, and taken up again where it was left.

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use crate::support::{ServiceProcess, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a stream until `enough`; ids and events.
async fn read(
    service: &ServiceProcess,
    path: &str,
    last: Option<&str>,
    enough: impl Fn(&[(String, Value)]) -> bool,
) -> Vec<(String, Value)> {
    let mut request = reqwest::Client::new().get(format!("{}{path}", service.url));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let (mut body, mut text, mut events) = (answer.bytes_stream(), String::new(), Vec::new());
    let reading = async {
        while !enough(&events) {
            text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
                if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                    events.push((id, serde_json::from_str(&data).unwrap()));
                }
                text = rest.to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the stream says too little");
    events
}

fn over(events: &[(String, Value)]) -> bool {
    events.last().is_some_and(|(_, event)| event["kind"] == "run.succeeded")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_events_come_as_they_happen_and_go_on_after_the_last_id() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let run = service.start_run().await;
    let path = format!("/runs/events?run={run}");
    let all = read(&service, &path, None, over).await;
    assert_eq!(all[0].1["kind"], "run.queued");
    assert!(all.iter().all(|(_, event)| event["runId"] == *run));
    let second = service.start_run().await;
    assert_eq!(service.ended(&second).await["state"], "succeeded");
    let rest = read(&service, &format!("/api{path}"), Some(&all[0].0), over).await;
    assert_eq!(rest, all[1..], "nothing is lost, nothing comes twice");
    let everything = read(&service, "/runs/events", Some(&all[all.len() - 1].0), over).await;
    assert!(everything.iter().all(|(_, event)| event["runId"] == *second), "the first run's are over");
    let bad =
        reqwest::Client::new().get(format!("{}/runs/events", service.url)).header("last-event-id", "x").send().await.unwrap();
    assert_eq!(bad.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_idle_readers_hold_no_connection_and_do_not_keep_a_service_from_stopping() {
    let site = site_with_chain(200).await;
    let service = site.serve().await;
    let pool = site.database.pool().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let answer = service.get("/runs/events").await;
        assert_eq!(answer.status(), 200);
        streams.push(answer);
    }
    let used = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'snapshots' \
         and (state <> 'idle' or query ilike 'listen%snapshots_run%')";
    wait_until(PATIENCE, "readers rest", async || sqlx::query_scalar::<_, i64>(used).fetch_one(&pool).await.unwrap() <= 2).await;
    assert_eq!(service.json("/runs").await["hasMore"], false, "others are served meanwhile");
    assert_eq!(service.terminate().await.code(), Some(0));
    for mut stream in streams {
        while stream.chunk().await.is_ok_and(|chunk| chunk.is_some()) {}
    }
}
