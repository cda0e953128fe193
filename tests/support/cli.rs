//! The binary as a command that ends, and what it said.
use std::borrow::BorrowMut;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::files::{pg_bin, snapshots_binary};

/// How long a command may take before a test says it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the binary reads; a test says each itself.
const READ: &[&str] = &[
    "DATABASE_URL",
    "CONTROL_DATABASE_URL",
    "S3_ENDPOINT",
    "S3_BUCKET",
    "S3_TIMEOUT_SECONDS",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "PUBLIC_BASE_URL",
    "SNAPSHOTS_DATA_DIR",
    "SNAPSHOTS_LISTEN",
    "SNAPSHOTS_NETWORK",
    "SNAPSHOTS_URL",
    "SNAPSHOTS_CONFIRMATIONS",
    "SNAPSHOTS_SIGNING_KEY_DIR",
    "SNAPSHOTS_SIGNING_PASSWORD",
    "SNAPSHOTS_SIGNING_PASSWORD_FILE",
    "SNAPSHOTS_LATEST_VALID_DAYS",
    "PUBLIC_SERVICE_URL",
    "SNAPSHOTS_ARCHIVE",
    "SNAPSHOTS_DRILL",
    "SNAPSHOTS_DRILL_DIR",
    "SNAPSHOTS_DRILL_DATABASE_URL",
    "SNAPSHOTS_PUBLIC_KEY",
    "SNAPSHOTS_FROM",
    "SNAPSHOTS_IDENTITY_FILE",
    "SNAPSHOTS_FULL_BUCKET",
    "SNAPSHOTS_FULL_RECIPIENTS_FILE",
    "SNAPSHOTS_STAGING_URL",
    "SNAPSHOTS_STAGING_RULES_FILE",
    "SNAPSHOTS_ROLE",
    "SNAPSHOTS_CLAIM",
    "SNAPSHOTS_NO_SCHEDULES",
    "SNAPSHOTS_SCHEDULE",
    "SNAPSHOTS_API_KEY",
    "RUST_LOG",
];

/// A command of the binary that knows PostgreSQL's programs and nothing else of this environment.
pub(crate) fn bare_command(args: &[&str]) -> Command {
    let mut command = Command::new(snapshots_binary());
    forget_environment(&mut command);
    command.args(args).env("SNAPSHOTS_PG_BIN", pg_bin()).env("RUST_LOG", "warn").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Takes what the binary reads out of a command's environment.
pub(super) fn forget_environment(command: &mut Command) {
    READ.iter().for_each(|name| {
        command.env_remove(name);
    });
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: impl BorrowMut<Command>) -> Ran {
    let command = command.borrow_mut();
    let output = tokio::time::timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command:?} hangs")).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ran {
    /// What was said with `--json`: every line of stdout is one object with a type.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines: Vec<Value> = self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(lines.iter().all(|line| line["type"].is_string()), "{}", self.stdout);
        lines
    }

    /// The result of a command with `--json` that succeeded: its last line, and the only one of that type.
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        let mut lines = self.lines();
        assert_eq!(lines.iter().filter(|line| line["type"] == "result").count(), 1, "{}", self.stdout);
        let mut last = lines.pop().unwrap();
        assert_eq!(last["type"], "result", "{}", self.stdout);
        last["result"].take()
    }

    /// The error of a command with `--json` that ended with `code`: its last line says the same code, what happened and what
    /// to do.
    pub(crate) fn error(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        let last = self.lines().pop().unwrap_or_else(|| panic!("nothing was said: {}", self.stderr));
        assert_eq!((&last["type"], &last["code"]), (&Value::from("error"), &Value::from(code)), "{last}");
        assert!(last["message"].as_str().is_some_and(|text| text.len() > 10), "{last}");
        last
    }

    /// As [`Ran::error`], and message or hint have each of these words.
    pub(crate) fn error_with(&self, code: i32, words: &[&str]) {
        let error = self.error(code);
        assert!(error["hint"].is_string(), "no next step: {error}");
        let said = format!("{} {}", error["message"], error["hint"]);
        words.iter().for_each(|word| assert!(said.contains(word), "{said} lacks {word:?}"));
    }
}
