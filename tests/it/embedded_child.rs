//! This test binary run again, as the process that another test kills.
//!
//! Invariant: a child prints one line of JSON when its servers are up, and then lives until it is killed.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use workers::embedded::data_dir::DataDir;
use workers::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};
use workers::embedded::s3::EmbeddedS3;

/// Tells the child its data directory; empty means an ephemeral one.
const DATA_DIR: &str = "SNAPSHOTS_TEST_CHILD_DATA_DIR";

/// A live child and what it said.
pub(crate) struct Service {
    child: Child,
    pub(crate) said: Value,
}

impl Service {
    /// Starts a child that serves `data_dir`, or an ephemeral directory, and waits until it does.
    pub(crate) async fn start(data_dir: Option<&Path>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded_child::serves_until_it_is_killed", "--nocapture"])
            .env(DATA_DIR, data_dir.unwrap_or(Path::new("")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(json) = line.find('{').and_then(|start| serde_json::from_str(&line[start..]).ok()) {
                return Self { child, said: json };
            }
        }
        panic!("the child ended early: {:?}", child.wait().await);
    }

    /// SIGKILL, and the wait for its end.
    pub(crate) async fn kill(mut self) -> Value {
        self.child.kill().await.unwrap();
        self.said
    }
}

#[tokio::test]
async fn serves_until_it_is_killed() {
    // Started by another test, in a process of its own; in a plain run of all tests there is nothing to serve.
    let Some(named) = std::env::var_os(DATA_DIR).map(PathBuf::from) else { return };
    let (dir, durability) = if named.as_os_str().is_empty() {
        (DataDir::ephemeral().unwrap(), Durability::Ephemeral)
    } else {
        (DataDir::open(&named).unwrap(), Durability::Durable)
    };
    let mut options = PostgresOptions::new(dir.postgres_dir());
    options.durability = durability;
    let postgres = EmbeddedPostgres::start(options).await.unwrap();
    let s3 = EmbeddedS3::start(&dir.s3_dir(), "snapshots", durability).await.unwrap();
    let pid = std::fs::read_to_string(postgres.data_dir().join("postmaster.pid")).unwrap();
    let said = json!({
        "dir": dir.path(), "url": postgres.url(), "pid": std::process::id(),
        "postmaster": pid.lines().next().unwrap().parse::<i32>().unwrap(),
        "endpoint": s3.endpoint(), "accessKey": s3.access_key(), "secretKey": s3.secret_key(),
    });
    println!("{said}");
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}
