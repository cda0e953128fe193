//! What operators do at the keyboard: the same acts as over HTTP, and how a command ends that is interrupted.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::support::{Asked, Fault, FaultProxy, Ran, ServiceProcess, bare_command, run, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

async fn at(service: &ServiceProcess, args: &[&str]) -> Ran {
    run(bare_command(args).args(["--json", "--url", &service.url])).await
}

async fn said(service: &ServiceProcess, args: &[&str]) -> String {
    let ran = run(bare_command(args).args(["--url", &service.url])).await;
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    ran.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_retried_and_watched_one_by_one_or_all_that_match() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let pool = site.database.pool().await;
    let canonical = async |is: bool| {
        let sql = "update public.blocks set canonical = $1 where height = 50";
        sqlx::query(sql).bind(is).execute(&pool).await.unwrap();
    };
    canonical(false).await;
    let id = async || at(&service, &["run", "start", "snapshot"]).await.result()["runId"].as_str().unwrap().to_owned();
    let (first, second) = {
        let first = id().await;
        at(&service, &["run", "watch", &first]).await.error_with(1, &["gaps", "run retry", &first]);
        let second = id().await;
        service.ended(&second).await;
        (first, second)
    };
    canonical(true).await;

    assert_eq!(at(&service, &["run", "retry", &first]).await.result()["runId"], json!(first));
    let watched = at(&service, &["run", "watch", &first]).await;
    assert_eq!(watched.result()["state"], "succeeded");
    let kinds: Vec<Value> =
        watched.lines().into_iter().filter(|line| line["type"] == "event").map(|mut line| line["event"]["kind"].take()).collect();
    for kind in ["run.queued", "run.failed", "run.retry", "run.succeeded"] {
        assert_eq!(kinds.iter().filter(|found| *found == kind).count(), 1, "{kind}: {kinds:?}");
    }
    at(&service, &["run", "retry", &first]).await.error_with(7, &["succeeded", "from the start"]);
    at(&service, &["run", "retry"]).await.error(2);
    at(&service, &["run", "retry", &first, "--workflow", "snapshot"]).await.error(2);
    at(&service, &["run", "retry", "--workflow", "nothing"]).await.error_with(2, &["nothing", "snapshot"]);

    let bulk = at(&service, &["run", "retry", "--workflow", "snapshot", "--text", "gaps"]).await.result();
    let ended = at(&service, &["run", "watch", bulk["runId"].as_str().unwrap()]).await.result();
    assert_eq!(ended["result"]["retried"], 1, "{ended}");
    assert_eq!(service.ended(&second).await["state"], "succeeded");
    let log = at(&service, &["audit-log", "--subject", &second]).await.result();
    assert_eq!(log[0]["act"], "run.retry");
    assert!(said(&service, &["audit-log"]).await.contains("run.retry"));
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_workers_and_pauses_are_handled_at_the_keyboard() {
    let site = site_with_chain(200).await;
    let service = site.serve().await;
    let nightly = "nightly-snapshot";
    assert!(said(&service, &["schedule", "list"]).await.contains("switched off by --no-schedules"));
    assert_eq!(at(&service, &["schedule", "resume", nightly]).await.result()["pausedAt"], Value::Null);
    let set = at(&service, &["schedule", "set", nightly, "--cron", "30 3 * * *", "--timezone", "Europe/Zurich"]).await.result();
    assert_eq!((&set["cron"], &set["timezone"]), (&json!("30 3 * * *"), &json!("Europe/Zurich")));
    assert!(said(&service, &["schedule", "show", nightly]).await.contains("30 3 * * * (Europe/Zurich)"));
    at(&service, &["schedule", "set", nightly]).await.error_with(2, &["nothing to change"]);
    at(&service, &["schedule", "set", nightly, "--cron", "never"]).await.error(2);
    at(&service, &["schedule", "show", "week ly/../x"]).await.error_with(4, &["week ly/../x"]);
    at(&service, &["schedule", "pause", nightly]).await.error(2);
    let paused = at(&service, &["schedule", "pause", nightly, "--reason", "holidays"]).await.result();
    assert_eq!(paused["pauseReason"], "holidays");
    at(&service, &["schedule", "pause", nightly, "--reason", "again"]).await.error_with(7, &["holidays"]);

    at(&service, &["queue", "pause", "cpu", "--reason", "too hot"]).await.result();
    at(&service, &["workflow", "pause", "snapshot", "--reason", "the disk is full"]).await.result();
    assert!(said(&service, &["queue", "list"]).await.contains("too hot (local, "));
    assert!(said(&service, &["workflow", "list"]).await.contains("the disk is full (local, "));
    at(&service, &["queue", "pause", "gpu", "--reason", "x"]).await.error_with(4, &["control, io, cpu, deliver"]);
    let started = at(&service, &["schedule", "run", nightly]).await.result();
    let run = started["runId"].as_str().unwrap();
    let state = async || service.json(&format!("/runs/{run}")).await["state"].clone();
    wait_until(PATIENCE, "the run waits", async || state().await == "paused").await;
    at(&service, &["run", "cancel", run]).await.result();
    at(&service, &["queue", "resume", "cpu"]).await.result();
    at(&service, &["workflow", "resume", "snapshot"]).await.result();
    at(&service, &["workflow", "resume", "snapshot"]).await.error_with(7, &["not paused"]);

    let workers = at(&service, &["worker", "list"]).await.result();
    assert_eq!((workers.as_array().unwrap().len(), &workers[0]["state"]), (1, &json!("alive")));
    assert!(said(&service, &["worker", "list"]).await.contains("api,worker,scheduler,deliver,ingest"));
    let id = workers[0]["id"].as_str().unwrap();
    assert_eq!(at(&service, &["worker", "drain", id]).await.result(), json!({ "id": id, "draining": true }));
    assert_eq!(at(&service, &["worker", "list"]).await.result()[0]["state"], "draining");
    let held = at(&service, &["run", "start", "status"]).await.result()["runId"].clone();
    let log = at(&service, &["audit-log", "--subject", &format!("worker {id}")]).await.result();
    assert_eq!(log[0]["act"], "worker.drain");
    assert_eq!(service.json(&format!("/runs/{}", held.as_str().unwrap())).await["attempts"], json!([]));
    at(&service, &["worker", "resume", id]).await.result();
    assert_eq!(service.ended(held.as_str().unwrap()).await["state"], "succeeded");
    for nobody in ["nobody", "no\u{1}body"] {
        at(&service, &["worker", "drain", nobody]).await.error_with(4, &["no", "worker"]);
    }
}

/// Interrupts a command once it has said something; its exit code and last line.
async fn interrupted(mut command: Command, when: impl AsyncFn() -> bool) -> (Option<i32>, Value) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_until(PATIENCE, "the command is in the middle of it", when).await;
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("the command does not end").unwrap();
    (ended.code(), serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap())
}

/// Whether the command that talks to this service catches SIGINT: bit 1 of SigCgt (proc(5)).
fn listens(url: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|entry| {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let status = read("status");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        mask & 0b10 != 0 && read("cmdline").contains(url)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_wait_says_how_to_go_on_and_the_run_goes_on() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let pool = site.database.pool().await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let mut waiting = bare_command(&["create", "--wait", "--json"]);
    waiting.args(["--url", &service.url]);
    let (code, last) = interrupted(waiting, async || listens(&service.url)).await;
    assert_eq!((code, &last["type"], &last["code"]), (Some(130), &json!("error"), &json!(130)), "{last}");
    assert!(last["hint"].as_str().unwrap().contains("snapshots run watch "), "{last}");
    holder.rollback().await.unwrap();
    let runs = service.json("/runs").await;
    assert_eq!(service.ended(runs["data"][0]["id"].as_str().unwrap()).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_watch_ends_with_130_and_the_run_can_be_watched_again() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let mut holder = site.database.pool().await.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let run = service.start_run().await;
    let mut watching = bare_command(&["run", "watch", &run, "--json"]);
    watching.args(["--url", &service.url]);
    let (code, last) = interrupted(watching, async || listens(&service.url)).await;
    assert_eq!((code, &last["type"], &last["code"]), (Some(130), &json!("error"), &json!(130)), "{last}");
    assert!(last["hint"].as_str().unwrap().contains("watch it again"), "{last}");
    holder.rollback().await.unwrap();
    assert_eq!(at(&service, &["run", "watch", &run]).await.result()["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_answer_is_lost_on_the_way_is_asked_for_again_and_starts_once() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let cut = |asked: &Asked| (asked.method == "POST" && asked.before < 2).then_some(Fault::CutAnswer);
    let line = FaultProxy::start(&service.url, cut).await;
    let started = run(bare_command(&["create", "--json", "--url", &line.url])).await.result();
    assert_eq!((line.faults().len(), &started["replayed"]), (2, &json!(true)));
    let id = started["runId"].as_str().unwrap();
    assert_eq!(service.ended(id).await["state"], "succeeded");
    let again = run(bare_command(&["run", "retry", id, "--from", "start", "--json", "--url", &line.url])).await.result();
    assert_eq!((line.faults().len(), &again["replayed"]), (4, &json!(true)));
    assert_eq!(service.json("/runs?workflow=snapshot").await["data"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_speaks_json_says_nothing_on_stdout_after_its_result() {
    let site = site_with_chain(200).await;
    let mut command = site.command();
    command.args(["serve", "--json", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"type\":\"result\"") {
        line.clear();
        tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
    }
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    let (mut rest, mut talk) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).await.unwrap();
    child.stderr.take().unwrap().read_to_string(&mut talk).await.unwrap();
    assert_eq!((child.wait().await.unwrap().code(), rest.as_str()), (Some(0), ""));
    assert!(talk.contains("stopping; once more"), "{talk}");
}
