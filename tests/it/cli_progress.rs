//! How a long command tells of itself: bars where a person watches, on stderr; only the result on stdout.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

use crate::support::{bare_command, database};

/// What a command writes to a terminal as its stderr, and what to stdout.
async fn on_a_terminal(args: &[&str]) -> (String, String) {
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = bare_command(args);
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
    let (seen, result) = on_a_terminal(&["chain", "generate", "--blocks", "4000", "--into", first.url()]).await;
    assert!(seen.contains("/4000") && seen.contains('['), "no bar: {seen:?}");
    assert!(!result.contains('\x1b') && result.contains("4000"), "{result:?}");

    let plain = bare_command(&["chain", "generate", "--blocks", "4000", "--into", second.url()]).output().await.unwrap();
    let told = String::from_utf8(plain.stderr).unwrap();
    assert!(told.contains(" …") && !told.contains('\x1b'), "without a terminal there are lines: {told:?}");
}
