//! `snapshots demo`: proves itself, and leaves nothing behind that nobody asked for.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{Home, Ran, bare_command, home, run};

const PATIENCE: Duration = Duration::from_secs(60);
const DEMO: [&str; 4] = ["demo", "--json", "--listen", "127.0.0.1:0"];

/// A short demo whose downloads and ephemeral directories lie in `temp`.
fn demo(temp: &Home, flags: &[&str]) -> Command {
    let mut command = bare_command(&DEMO);
    command.args(["--blocks", "1200"]).args(flags).env("TMPDIR", temp.path());
    command
}

fn proved(ran: &Ran) -> Value {
    let result = ran.result();
    let checks = result["checks"].as_array().unwrap();
    assert!(result["proved"] == true && checks.len() > 5 && checks.iter().all(|check| check["holds"] == true), "{result:#}");
    result
}

/// Command lines of processes that mention a path.
fn processes(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_demo_proves_everything_and_leaves_nothing_behind() {
    let temp = home();
    let ran = run(&mut demo(&temp, &["--once", "--ephemeral"])).await;
    let result = proved(&ran);
    assert!(result["blockHeight"].as_u64().unwrap() > 500);
    for tool in ["curl -fsSLO", "sha256sum -c snapshot.sha256", "tar --zstd -xf", "pg_restore -j8"] {
        let deeds = result["deeds"].as_array().unwrap();
        assert!(deeds.iter().any(|deed| deed["what"].as_str().unwrap().starts_with(tool)), "{tool}: {deeds:?}");
    }
    assert_eq!(temp.names(), Vec::<String>::new());
    assert_eq!(processes(temp.text()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_too_short_to_have_a_final_block_is_refused_before_anything_starts() {
    let temp = home();
    for blocks in ["0", "1", "100"] {
        let ran = run(bare_command(&["demo", "--json", "--blocks", blocks, "--data-dir"]).arg(temp.path().join("data"))).await;
        ran.error_with(2, &["final", "--blocks 1000"]);
        assert_eq!(ran.lines().len(), 1, "something was started first: {}", ran.stdout);
    }
    assert!(temp.names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_on_a_lasting_directory_adopts_what_the_last_one_left() {
    let (temp, data) = (home(), home());
    let first = proved(&run(&mut demo(&temp, &["--once", "--data-dir", data.text()])).await);
    assert!(!data.pid_file().exists(), "a server is still running");
    let second = proved(&run(&mut demo(&temp, &["--once", "--data-dir", data.text()])).await);
    assert_eq!(second["snapshot"], format!("{}.2", first["snapshot"].as_str().unwrap()));
    assert_eq!(second["blockHeight"], first["blockHeight"]);
    assert!(!data.pid_file().exists() && temp.names().is_empty());
}

/// A demo that keeps running.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until a line holds these words.
    async fn until(&mut self, words: &str) -> String {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("the demo hangs");
            let line = line.unwrap().unwrap_or_else(|| panic!("the demo ended before it said {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    async fn interrupt(&mut self) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the demo does not end").unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_keeps_serving_until_ctrl_c_and_then_nothing_runs() {
    let (temp, data) = (home(), home());
    let mut running = Running::start(demo(&temp, &["--data-dir", data.text()]));
    let said: Value = serde_json::from_str(&running.until("\"result\"").await).unwrap();
    running.until("Ctrl-C").await;
    let archive = reqwest::get(said["result"]["urls"]["archive"].as_str().unwrap()).await.unwrap();
    assert_eq!(archive.status(), 200);
    let listed = run(bare_command(&["list", "--json", "--data-dir", data.text()]).env("TMPDIR", temp.path())).await.result();
    assert_eq!(listed[0]["id"], said["result"]["snapshot"]);
    let schedules = run(bare_command(&["schedule", "list", "--json", "--data-dir", data.text()])).await.result();
    let schedules = schedules.as_array().unwrap();
    assert!(!schedules.is_empty() && schedules.iter().all(|one| one["pausedAt"].is_string()), "{schedules:?}");
    assert!(data.pid_file().exists());
    assert_eq!(running.interrupt().await, Some(0));
    assert!(!data.pid_file().exists() && processes(data.text()).is_empty(), "{:?}", processes(data.text()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_the_middle_of_a_demo_ends_it_with_130_and_nothing_runs() {
    // Later steps of so short a chain may begin and end between two looks at the run; these are always told of.
    for moment in ["starting PostgreSQL", "generating a chain", "snapshot: plan"] {
        let (temp, data) = (home(), home());
        let mut running = Running::start(demo(&temp, &["--data-dir", data.text()]));
        running.until(moment).await;
        assert_eq!(running.interrupt().await, Some(130), "{moment}");
        assert!(!data.pid_file().exists() && processes(data.text()).is_empty(), "{moment}: {:?}", processes(data.text()));
        assert!(temp.names().is_empty(), "{moment}: {:?}", temp.names());
    }
}
