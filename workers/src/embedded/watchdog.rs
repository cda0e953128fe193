//! Removes an ephemeral data directory when this process is gone, however it went.
//!
//! A small shell process reads a pipe that only we hold open; the end of the pipe means that we are gone, even
//! by SIGKILL. It then ends the database server of that directory and deletes the directory. Invariant: it acts
//! on nothing outside of the one directory it was given but that server's socket, and never while we live.
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the directory; a socket that did not fit into it lies in a directory of ours in /tmp, which line 5 of the pid file names. SIGQUIT is PostgreSQL's immediate stop; a server always works in its data directory, so
/// where `/proc` tells, a reused process id is spared. The loop deletes again because a server that was just
/// starting may still write.
const SCRIPT: &str = r#"
cat >/dev/null
pidfile="$1/postgres/data/postmaster.pid"
tries=0
while [ -e "$1" ] && [ "$tries" -lt 100 ]; do
  pid=$(head -n 1 "$pidfile" 2>/dev/null)
  cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null || echo "$1/postgres/data")
  socket=$(sed -n 5p "$pidfile" 2>/dev/null)
  if [ "$cwd" = "$1/postgres/data" ] && [ "$pid" -gt 1 ] 2>/dev/null; then
    kill -QUIT "$pid" 2>/dev/null
    waits=0
    while [ -e "$pidfile" ] && kill -0 "$pid" 2>/dev/null && [ "$waits" -lt 100 ]; do sleep 0.05; waits=$((waits+1)); done
  fi
  case "$socket" in /tmp/snapshots-pg-*/*|*..*) ;; /tmp/snapshots-pg-*) rm -rf -- "$socket" 2>/dev/null ;; esac
  rm -rf -- "$1" 2>/dev/null
  [ -e "$1" ] && sleep 0.1
  tries=$((tries+1))
done
"#;

/// The running watchdog; dropping it is the signal to clean up.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Starts watching over `dir`. It runs in a process group of its own, so Ctrl-C at a terminal spares it.
    pub(super) fn start(dir: &Path) -> std::io::Result<Self> {
        let dir = dir.canonicalize()?;
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "snapshots-watchdog"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// Has it clean up now and waits until it has. Blocks for as long as the server takes to stop.
    pub(super) fn finish(mut self) -> std::io::Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().map(drop)
    }
}
