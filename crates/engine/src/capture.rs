//! The last log lines of each attempt: a layer of the subscriber collects what is said inside an attempt's span, the
//! engine stores it with the attempt. Without the layer nothing is collected.
//! Invariant: an attempt holds at most [`LINES`] lines and [`BYTES`] of text, the latest; passwords in URLs are not in them.
use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::Utc;
use tracing::{
    Event, Metadata, Span, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, Registry, layer::Context, registry::LookupSpan};

use crate::{
    model::{Level, LogLine},
    redact::storable,
};

const LINES: usize = 200;
const BYTES: usize = 16 * 1024;
/// A longer line is cut.
const LINE: usize = 2 * 1024;

/// The name of an attempt's span.
pub(crate) const SPAN: &str = "attempt";

/// Collects lines of attempts; add it to the registry, filtered as you like.
#[derive(Debug, Default)]
pub struct CaptureLayer(());

impl CaptureLayer {
    /// A layer for `tracing_subscriber::registry()`.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

fn is_attempt(metadata: &Metadata<'_>) -> bool {
    metadata.name() == SPAN && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CaptureLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if is_attempt(attributes.metadata())
            && let Some(span) = ctx.span(id)
        {
            span.extensions_mut().insert(Arc::new(Tail::default()));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let Some(scope) = ctx.event_scope(event) else { return };
        for span in scope {
            if let Some(tail) = span.extensions().get::<Arc<Tail>>() {
                return tail.push(line(event));
            }
        }
    }
}

/// The lines of the attempt whose span this is, if they are collected.
pub(crate) fn tail_of(span: &Span) -> Option<Arc<Tail>> {
    let found = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.extensions().get::<Arc<Tail>>().cloned()
    });
    found.flatten()
}

/// The last lines of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<LogLine>,
    bytes: usize,
    said: u64,
}

impl Tail {
    fn push(&self, line: LogLine) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.said += 1;
        tail.bytes += line.text.len();
        tail.lines.push_back(line);
        while tail.lines.len() > LINES || tail.bytes > BYTES {
            let gone = tail.lines.pop_front().map_or(0, |line| line.text.len());
            tail.bytes -= gone;
        }
    }

    /// The lines, and how many were said in all, if that is more than `seen`.
    pub(crate) fn beyond(&self, seen: u64) -> Option<(u64, Vec<LogLine>)> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (tail.said > seen).then(|| (tail.said, tail.lines.iter().cloned().collect()))
    }
}

fn line(event: &Event<'_>) -> LogLine {
    let mut text = Text::default();
    event.record(&mut text);
    let mut text = storable(&format!("{}{}", text.message, text.fields));
    if text.len() > LINE {
        let end = (0..=LINE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    let level = match *event.metadata().level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    };
    LogLine { at: Utc::now(), level, target: event.metadata().target().to_owned(), text }
}

/// `message name=value name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error_span, info, subscriber::with_default};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn lines(said: impl FnOnce()) -> Vec<LogLine> {
        let subscriber = tracing_subscriber::registry().with(CaptureLayer::new());
        with_default(subscriber, || {
            let span = error_span!(SPAN, step = "a");
            span.in_scope(said);
            tail_of(&span).and_then(|tail| tail.beyond(0)).map_or_else(Vec::new, |(_, lines)| lines)
        })
    }

    #[test]
    fn what_is_said_inside_an_attempt_is_kept_with_its_fields_and_without_passwords() {
        let kept = lines(|| error_span!("inner").in_scope(|| info!(rows = 7, url = "postgres://a:b@h/x", "cut a range")));
        let texts: Vec<_> = kept.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["cut a range rows=7 url=postgres://a:***@h/x"]);
        assert_eq!(kept[0].level, Level::Info);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let many = lines(|| (0..1000).for_each(|no| info!(no, "line")));
        assert_eq!(many.len(), LINES);
        assert_eq!(many.last().map(|line| line.text.as_str()), Some("line no=999"));
        let long = lines(|| (0..100).for_each(|_| info!("{}", "é".repeat(4000))));
        assert!(long.iter().map(|line| line.text.len()).sum::<usize>() <= BYTES);
        assert!(!long.is_empty() && long.iter().all(|line| line.text.ends_with('…')));
    }

    #[test]
    fn what_is_said_outside_is_not_kept() {
        let subscriber = tracing_subscriber::registry().with(CaptureLayer::new());
        with_default(subscriber, || {
            let span = error_span!(SPAN);
            info!("outside");
            error_span!("other").in_scope(|| info!("elsewhere"));
            assert!(tail_of(&span).is_some_and(|tail| tail.beyond(0).is_none()));
        });
    }
}
