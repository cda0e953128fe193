//! What the process says while it works: on stderr, for people on a terminal, as JSON elsewhere; and the last lines of each
//! attempt for the ledger. Invariant: no password of a URL is in it.

use std::io::{IsTerminal, Write};

use engine::CaptureLayer;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Who reads, and what is said unless `RUST_LOG` decides it.
pub(crate) struct Logs {
    /// JSON even on a terminal.
    pub(crate) json: bool,
    /// A service tells what it does; a command only what is wrong.
    pub(crate) service: bool,
}

impl Logs {
    /// Begins to log; a second call changes nothing.
    pub(crate) fn start(self) {
        let usual = if self.service { "warn,engine=info,workflows=info,workers=info" } else { "warn" };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
        let lines = fmt::layer().with_writer(|| Redacting(std::io::stderr()));
        let lines = match self.json || !std::io::stderr().is_terminal() {
            true => lines.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
            false => lines.with_filter(filter).boxed(),
        };
        // What an attempt keeps does not depend on what is shown. Libraries' spans stay off: they are entered at every poll.
        let ours = ["chain", "engine", "snapshot", "workers", "workflows"].map(|target| (target, LevelFilter::INFO));
        let capture = CaptureLayer::new().with_filter(Targets::new().with_default(LevelFilter::WARN).with_targets(ours));
        let _ = tracing_subscriber::registry().with(lines).with(capture).try_init();
    }
}

/// Writes a line a call, as `fmt` makes them.
struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(engine::redact(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_do_not_reach_the_log() {
        let mut written = Redacting(Vec::new());
        writeln!(written, "{}", serde_json::json!({ "message": "cannot reach \"postgres://ann:secret@db/x\"" })).unwrap();
        let line = String::from_utf8(written.0).unwrap();
        assert!(line.contains("postgres://ann:***@db/x") && !line.contains("secret"), "{line}");
    }
}
