//! What a service logs when nobody sits at a terminal, and what it keeps of it with each attempt.
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{ServiceProcess, site_with_chain};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_logged_once_as_json_with_its_run_and_kept_with_its_attempt() {
    let site = site_with_chain(100).await;
    let pool = site.database.pool().await;
    sqlx::query("update public.blocks set parent_hash = '0xbad' where height = 50").execute(&pool).await.unwrap();
    let path = site.dir.path().join("log");
    let mut command = site.command();
    command.args(["serve", "--listen", "127.0.0.1:0", "--json"]);
    command.stdout(Stdio::piped()).stderr(std::fs::File::create(&path).unwrap()).env_remove("RUST_LOG");
    let service = ServiceProcess::start(command).await;
    let run = service.start_run().await;
    let ended = service.ended(&run).await;
    service.kill().await;

    let attempt = &ended["attempts"][0];
    let error = attempt["error"].as_str().expect("the attempt has an error");
    let kept = attempt["log"].as_array().expect("the attempt has a log");
    let last = kept.last().unwrap();
    assert_eq!(
        (last["level"].as_str(), last["text"].as_str()),
        (Some("error"), Some(&*format!("the step failed error={error}")))
    );

    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let about: Vec<&Value> = lines.iter().filter(|line| line["error"] == error).collect();
    let [line] = about.as_slice() else { panic!("the error is to be logged once: {about:#?}") };
    assert_eq!((&line["level"], &line["message"]), (&json!("ERROR"), &json!("the step failed")));
    let span = &line["spans"][0];
    let expected = (&json!(run), &json!("snapshot"), &json!("plan"), &json!(1));
    assert_eq!((&span["run_id"], &span["workflow"], &span["step"], &span["attempt"]), expected);
}
