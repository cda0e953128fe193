//! What a command says: data on stdout, talk on stderr; with `--json` one object a line, the last one the result.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit;

/// How to talk.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For people, or for programs.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// True when a program listens.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// A line of talk.
    pub fn say(self, text: &str) {
        if self.json {
            self.line(&json!({ "type": "log", "message": text }));
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Step `number` of `of` begins.
    pub fn step(self, number: usize, of: usize, name: &str) {
        if self.json {
            self.line(&json!({ "type": "step", "number": number, "of": of, "name": name }));
        } else if std::io::stderr().is_terminal() {
            // Elsewhere the progress that follows says it.
            let _ = writeln!(std::io::stderr(), "{number}/{of} {name}");
        }
    }

    /// The result: `text` for people, `value` for programs.
    pub fn result(self, text: &str, value: &impl Serialize) {
        if self.json {
            self.line(&json!({ "type": "result", "result": value }));
        } else {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// A line of talk after the result, which is the last that stdout has.
    pub fn say_aside(self, text: &str) {
        let line = if self.json { json!({ "type": "log", "message": text }).to_string() } else { text.to_owned() };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Something that happened: `text` for people, `value` for programs.
    pub fn event(self, text: &str, value: &impl Serialize) {
        if self.json {
            self.line(&json!({ "type": "event", "event": value }));
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// The end of a command that failed.
    pub fn error(self, error: &anyhow::Error) -> exit::Exit {
        let (exit, hint) = exit::classify(error);
        if self.json {
            self.line(&json!({ "type": "error", "code": exit as u8, "message": format!("{error:#}"), "hint": hint }));
        } else {
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "error: {error:#}");
            if let Some(hint) = hint {
                let _ = writeln!(stderr, " help: {hint}");
            }
        }
        exit
    }

    fn line(self, value: &Value) {
        // A closed pipe is the reader's business.
        let _ = writeln!(std::io::stdout(), "{value}");
    }

    /// Shows the progress of something that counts to `total` (0: not known yet), and that it has begun.
    pub fn progress(self, what: &str, total: u64) -> Progress {
        let bar = (!self.json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg:28} [{bar:30}] {pos}/{len} {per_sec} {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar
        });
        if bar.is_none() {
            self.say(&format!("{what} …"));
        }
        Progress { output: self, bar, what: what.to_owned(), total, said: Instant::now(), begun: None, unit: "", rate: None }
    }
}

/// A progress bar on a terminal, a plain line every ten seconds elsewhere, an object a second for programs.
pub struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    said: Instant,
    /// When counting began, and at what: what an earlier run did is no speed of this one.
    begun: Option<(Instant, u64)>,
    unit: &'static str,
    /// Its speed a second as whoever counts knows it, which may be better than what was seen here.
    rate: Option<u64>,
}

impl Progress {
    /// Renames what is going on and how much of it there is.
    pub fn phase(&mut self, what: &str, total: u64) {
        self.total = total;
        if self.what != what {
            what.clone_into(&mut self.what);
            if self.bar.is_none() {
                self.output.say(&format!("{what} …"));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
            bar.set_length(total);
        }
    }

    /// Shows how far it is, of how much, in a unit.
    pub fn count(&mut self, done: u64, total: u64, unit: &'static str) {
        if unit != self.unit || total != self.total {
            (self.unit, self.total, self.begun) = (unit, total, None);
            if let Some(bar) = &self.bar {
                bar.set_length(total);
                if unit == "bytes" {
                    let style = "{msg:28} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
                    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
                }
            }
        }
        self.set(done);
    }

    /// Shows how far it is, and how fast it goes by its own account.
    pub fn set_at(&mut self, done: u64, rate: Option<f64>) {
        self.rate = rate.map(|rate| rate as u64);
        self.set(done);
    }

    /// Shows how far it is.
    pub fn set(&mut self, done: u64) {
        let (begun, first) = *self.begun.get_or_insert((Instant::now(), done));
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let every = if self.output.json { Duration::from_secs(1) } else { Duration::from_secs(10) };
        if self.said.elapsed() < every {
            return;
        }
        self.said = Instant::now();
        let seen = || (done.saturating_sub(first) as f64 / begun.elapsed().as_secs_f64().max(0.001)) as u64;
        let rate = self.rate.unwrap_or_else(seen);
        let left = time_left(rate, self.total.saturating_sub(done));
        if self.output.json {
            self.output.line(&json!({ "type": "progress", "what": self.what, "done": done, "total": self.total,
                "unit": self.unit, "perSecond": rate, "secondsLeft": left }));
        } else {
            let shown = |count: u64| if self.unit == "bytes" { bytes(count) } else { count.to_string() };
            let left = left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
            let (what, total) = (&self.what, shown(self.total));
            self.output.say(&format!("{what}: {} of {total} ({} a second{left})", shown(done), shown(rate)));
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds that the rest takes at so many a second; `None` where nothing moves.
fn time_left(rate: u64, rest: u64) -> Option<u64> {
    (rate > 0).then(|| rest.div_ceil(rate))
}

/// `1.4 MB`; decimal, as disks and bandwidths are sold.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_tells_how_long_the_rest_takes_once_something_is_done() {
        assert_eq!(time_left(10, 95), Some(10));
        assert_eq!(time_left(0, 95), None);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_400_000), "1.4 MB");
        assert_eq!(bytes(161_061_273_600), "161.1 GB");
    }
}
