//! How a long command tells of itself: bars where a person watches, on stderr; only the result on stdout.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{bare_command, database, published, run, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a command writes to a terminal as its stderr, and what to stdout.
async fn on_a_terminal(mut command: Command) -> (String, String) {
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(Stdio::from(terminal.slave));
    let child = command.spawn().unwrap();
    // The command holds the other end of the terminal open as long as it lives here.
    drop(command);
    let mut master = File::from(terminal.master);
    let reading = tokio::task::spawn_blocking(move || {
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        // The terminal ends with an error, not with an end of file.
        while let Ok(count @ 1..) = master.read(&mut part) {
            seen.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    let ended = child.wait_with_output().await.unwrap();
    assert!(ended.status.success());
    (reading.await.unwrap(), String::from_utf8(ended.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_is_drawn_on_a_terminal_and_stdout_has_the_result_alone() {
    let (first, second) = (database().await, database().await);
    let (seen, result) = on_a_terminal(bare_command(&["chain", "generate", "--blocks", "4000", "--into", first.url()])).await;
    assert!(seen.contains("/4000") && seen.contains('['), "no bar: {seen:?}");
    assert!(!result.contains('\x1b') && result.contains("4000"), "{result:?}");

    let plain = bare_command(&["chain", "generate", "--blocks", "4000", "--into", second.url()]).output().await.unwrap();
    let told = String::from_utf8(plain.stderr).unwrap();
    assert!(told.contains(" …") && !told.contains('\x1b'), "without a terminal there are lines: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_shows_on_a_terminal_how_fast_rows_come_and_how_long_the_rest_takes() {
    let (site, _) = published(2_500).await;
    let target = database().await;
    // As a person would type it.
    let mut command = bare_command(&["restore", "--jobs", "1", "--from", &site.published()]);
    command.env("DATABASE_URL", target.url()).env("SNAPSHOTS_PUBLIC_KEY", site.public_keys());
    command.env("SNAPSHOTS_DATA_DIR", site.dir.path().join("reader"));
    let (seen, result) = on_a_terminal(command).await;
    assert!(result.contains("rows loaded"), "{result}");
    // `3/8 rows   [===>   ] 12.10 MB/40.96 MB 31.02 MB/s 1s`
    let rows: Vec<&str> = seen.split(['\r', '\n']).filter(|line| line.contains("/8 rows") && line.contains('[')).collect();
    let moving = |line: &&&str| {
        let words: Vec<&str> = line.split(']').nth(1).unwrap_or_default().split_whitespace().collect();
        let [_, of, _, speed, unit, left, ..] = words[..] else { return false };
        of.contains("B/") && speed.parse::<f64>().is_ok_and(|speed| speed > 0.0) && unit.ends_with("B/s") && is_time(left)
    };
    assert!(rows.iter().filter(moving).count() > 1, "no speed, or no time left: {rows:?}");
}

/// For example `12s`.
fn is_time(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(['s', 'm', 'h'])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_tells_programs_how_fast_rows_come_and_how_long_the_rest_takes() {
    let (site, _) = published(3_000).await;
    let target = database().await;
    let pool = target.pool().await;
    let mut command = site.client("restore", &site.published(), target.url());
    let mut child = command.arg("--jobs=2").stdout(Stdio::piped()).spawn().unwrap();
    let made = "select to_regclass('public.events') is not null";
    wait_until(PATIENCE, "the tables are made", async || sqlx::query_scalar(made).fetch_one(&pool).await.unwrap()).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table public.events in share mode").execute(&mut *holder).await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = loop {
        let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().expect("it told nothing")).unwrap();
        if line["type"] == "progress" && line["unit"] == "bytes" && line["perSecond"].as_u64() > Some(0) {
            break line;
        }
    };
    holder.rollback().await.unwrap();
    let (done, total) = (told["done"].as_u64().unwrap(), told["total"].as_u64().unwrap());
    let rest = (total - done).div_ceil(told["perSecond"].as_u64().unwrap());
    assert!(done > 0 && done < total && told["secondsLeft"] == rest, "{told}");
    while lines.next_line().await.unwrap().is_some() {}
    assert!(child.wait().await.unwrap().success());
    let mut verify = site.client("verify", &site.published(), target.url());
    assert_eq!(run(verify.arg("--database")).await.result()["proved"], true);
}
