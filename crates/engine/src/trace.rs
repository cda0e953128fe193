//! OpenTelemetry spans, made by hand at the few moments that matter: a run is asked for, an attempt begins, an attempt ends.
//!
//! Each attempt is a trace of its own, with links to the span that asked for its run and to the attempt before: a step that is
//! tried for three days must not be one trace (semantic conventions for messaging, links between producer and consumer).
//! Without a tracer provider nothing is recorded, and nothing is written to the ledger but the context a request came with.
//! Invariant: no trace decides anything; what cannot be recorded is left out.
use std::{collections::HashMap, fmt::Display, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan},
    trace::{Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer},
};
use sqlx::PgPool;
use tracing::debug;

use crate::{
    attempt::{Claimed, Lease},
    error::chain,
};

const SCOPE: &str = "engine";
/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// The span of asking for a run; ends when this is dropped.
pub(crate) struct Asking(BoxedSpan);

impl Asking {
    /// A part of what the current context is about, if anything.
    pub(crate) fn begin(workflow: &'static str) -> Self {
        let name = SpanBuilder::from_name("start").with_kind(SpanKind::Producer);
        let mut span = global::tracer(SCOPE).build_with_context(name, &Context::current());
        if span.is_recording() {
            span.update_name(format!("start {workflow}"));
            span.set_attribute(KeyValue::new("snapshots.workflow", workflow));
        }
        Self(span)
    }

    /// What the run remembers: this span, or where nothing is recorded the context that somebody sent.
    pub(crate) fn traceparent(&self) -> Option<String> {
        let context = self.0.span_context();
        let mut headers = HashMap::new();
        let of = Context::new().with_remote_span_context(context.clone());
        global::get_text_map_propagator(|propagator| propagator.inject_context(&of, &mut headers));
        headers.remove(TRACEPARENT).filter(|_| context.is_valid())
    }

    /// Says which run it came to.
    pub(crate) fn run(&mut self, run: &impl Display) {
        if self.0.is_recording() {
            self.0.set_attribute(KeyValue::new("snapshots.run.id", run.to_string()));
        }
    }
}

/// The span of an attempt.
pub(crate) struct Trying(BoxedSpan);

/// What a note about a trace may keep an attempt's end waiting at most.
const PATIENCE: Duration = Duration::from_secs(1);

impl Trying {
    /// The root of a new trace; none where nothing is recorded.
    pub(crate) fn begin(claimed: &Claimed, worker: &str) -> Option<Self> {
        let name = SpanBuilder::from_name("attempt").with_kind(SpanKind::Consumer);
        let mut span = global::tracer(SCOPE).build_with_context(name, &Context::new());
        if !span.is_recording() {
            return None;
        }
        span.update_name(format!("{} {}", claimed.workflow, claimed.name));
        span.set_attributes([
            KeyValue::new("snapshots.workflow", claimed.workflow.clone()),
            KeyValue::new("snapshots.step", claimed.name.clone()),
            KeyValue::new("snapshots.step.index", i64::from(claimed.index)),
            KeyValue::new("snapshots.attempt", i64::from(claimed.attempt)),
            KeyValue::new("snapshots.run.id", claimed.run_id.to_string()),
            KeyValue::new("snapshots.worker", worker.to_owned()),
        ]);
        tracing::Span::current().record("trace_id", span.span_context().trace_id().to_string());
        Some(Self(span))
    }

    /// Notes the trace with the attempt, and links it to what came before.
    pub(crate) async fn link(&mut self, pool: &PgPool, lease: Lease) {
        let before = match tokio::time::timeout(PATIENCE, note(pool, lease, self.0.span_context())).await {
            Ok(Ok(before)) => before.unwrap_or_default(),
            Ok(Err(error)) => return debug!(error = chain(&error), "the attempt's trace could not be noted"),
            Err(_) => return debug!("the attempt's trace could not be noted in time"),
        };
        let asked = before.traceparent.and_then(|header| asked(&header));
        let tried = before.trace_id.zip(before.span_id).and_then(|(trace, span)| tried(&trace, &span));
        for (context, what) in [(asked, "run"), (tried, "attempt before")] {
            if let Some(context) = context {
                self.0.add_link(context, vec![KeyValue::new("snapshots.link", what)]);
            }
        }
    }

    /// Ends it, `error` saying why it came to nothing.
    pub(crate) fn end(mut self, outcome: &'static str, error: Option<&str>) {
        self.0.set_attribute(KeyValue::new("snapshots.outcome", outcome));
        if let Some(error) = error {
            self.0.set_status(Status::error(error.to_owned()));
        }
        self.0.end();
    }
}

fn asked(header: &str) -> Option<SpanContext> {
    let headers = HashMap::from([(TRACEPARENT.to_owned(), header.to_owned())]);
    let context = global::get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::new(), &headers));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

fn tried(trace: &str, span: &str) -> Option<SpanContext> {
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default()))
}

/// What an attempt links to.
#[derive(Default, sqlx::FromRow)]
struct Before {
    traceparent: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
}

async fn note(pool: &PgPool, lease: Lease, context: &SpanContext) -> sqlx::Result<Option<Before>> {
    let sql = "with noted as ( \
             update snapshots.attempt set trace_id = $3, span_id = $4 where step_id = $1 and lease_token = $2 \
         ) \
         select r.traceparent, p.trace_id, p.span_id \
         from snapshots.step s join snapshots.run r on r.id = s.run_id \
         left join lateral ( \
             select trace_id, span_id from snapshots.attempt \
             where step_id = s.id and lease_token < $2 and span_id is not null order by lease_token desc limit 1 \
         ) p on true \
         where s.id = $1";
    sqlx::query_as(sql)
        .bind(lease.step)
        .bind(lease.token)
        .bind(context.trace_id().to_string())
        .bind(context.span_id().to_string())
        .fetch_optional(pool)
        .await
}
