//! Following a run to its end: how far it is, and for `run watch` what happens, line by line.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::events::Events;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Time between two looks at how far a run is.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for the end of a run and returns it.
pub(crate) async fn follow(client: &Client, run: &str, output: Output) -> anyhow::Result<Value> {
    let mut progress = output.progress("waiting for a worker", 0);
    let begun = Instant::now();
    loop {
        let shown: Value = client.get(&format!("/runs/{run}")).await?;
        let seen = Seen::of(&shown);
        progress.phase(&seen.step, seen.total);
        progress.set_at(seen.done, seen.rate);
        if matches!(shown["state"].as_str(), Some("succeeded" | "failed" | "cancelled")) {
            progress.finish();
            return outcome(shown);
        }
        // Short runs are answered at once, long ones asked about now and then.
        tokio::time::sleep((begun.elapsed() / 64).clamp(Duration::from_millis(40), LOOK)).await;
    }
}

/// Follows a run from its beginning and tells each line of its log.
pub(crate) async fn watch(client: &Client, run: &str, output: Output) -> anyhow::Result<Value> {
    let mut progress = output.progress("waiting for a worker", 0);
    let mut events = Events::of_run(client, run);
    // The last line of the log that says how the run ended, and whether nothing came since it was seen to have.
    let (mut end, mut quiet) = (String::new(), false);
    loop {
        let shown: Value = client.get(&format!("/runs/{run}")).await?;
        let seen = Seen::of(&shown);
        progress.phase(&seen.step, seen.total);
        progress.set_at(seen.done, seen.rate);
        let state = shown["state"].as_str().unwrap_or_default();
        let ended = matches!(state, "succeeded" | "failed" | "cancelled");
        if ended && (quiet || end == format!("run.{state}")) {
            progress.finish();
            return outcome(shown);
        }
        let mut look = std::pin::pin!(tokio::time::sleep(LOOK));
        quiet = loop {
            tokio::select! {
                biased;
                event = events.next() => {
                    let event = event?;
                    output.event(&line(&event), &event);
                    if is_end(&event) {
                        event["kind"].as_str().unwrap_or_default().clone_into(&mut end);
                        break false;
                    }
                }
                () = &mut look => break ended,
            }
        };
    }
}

/// Whether the line says that the run has ended. It may have been retried since: the run itself is looked at.
fn is_end(event: &Value) -> bool {
    matches!(event["kind"].as_str(), Some("run.succeeded" | "run.failed" | "run.cancelled"))
}

fn outcome(shown: Value) -> anyhow::Result<Value> {
    let state = shown["state"].as_str().unwrap_or_default();
    if state == "succeeded" {
        return Ok(shown);
    }
    let why = shown["error"].as_str().unwrap_or("no reason was recorded");
    let failure = Failure::new(Exit::Failed, format!("the run {state}: {why}"));
    let id = shown["id"].as_str().unwrap_or_default();
    let hint = match shown["workflow"].as_str() {
        Some("snapshot") => {
            format!("`latest` is as it was; once the cause is mended go on with `snapshots run retry {id}`")
        }
        _ => format!("once the cause is mended go on with `snapshots run retry {id}`"),
    };
    Err(failure.hint(hint).into())
}

/// A line of the log for people.
fn line(event: &Value) -> String {
    let field = |name: &str| event[name].as_str().unwrap_or_default();
    let data = &event["data"];
    let mut line = format!("{:.19}Z {:5} {}", field("at"), field("level"), field("kind"));
    for (name, value) in data.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!(" {name}={value}"));
    }
    line
}

/// Where a run is: the lowest unfinished step, and how many of its like are done.
pub(crate) struct Seen {
    pub(crate) step: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// A second, where the step says so.
    pub(crate) rate: Option<f64>,
}

impl Seen {
    pub(crate) fn of(shown: &Value) -> Self {
        let empty = Vec::new();
        let steps = shown["steps"].as_array().unwrap_or(&empty);
        let open = |step: &&Value| !matches!(step["state"].as_str(), Some("succeeded" | "blocked"));
        let Some(current) = steps.iter().find(open) else {
            return Self { step: "finishing".into(), done: 0, total: 0, rate: None };
        };
        let name = current["name"].as_str().unwrap_or_default();
        let alike: Vec<&Value> = steps.iter().filter(|step| step["name"] == name && step["kind"] != "group").collect();
        let succeeded = alike.iter().filter(|step| step["state"] == "succeeded").count() as u64;
        if alike.len() > 1 {
            return Self { step: name.into(), done: succeeded, total: alike.len() as u64, rate: None };
        }
        let progress = &current["progress"];
        let count = |name: &str| progress[name].as_u64().unwrap_or(0);
        Self { step: name.into(), done: count("done"), total: count("total"), rate: progress["rate"].as_f64() }
    }
}
