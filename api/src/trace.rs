//! A request that changes something, or whose sender traces it, is a span; what it starts is linked to it.
//!
//! Where nothing is exported, the sender's context is passed on all the same (W3C Trace Context), so that a run remembers it.
//! Reads that nobody traces are not recorded: they are most of the requests, and start nothing.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{FutureExt, Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_http::HeaderExtractor;

pub(crate) async fn trace(request: Request, next: Next) -> Response {
    let sender = global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(request.headers()))
    });
    let traced = sender.has_active_span();
    if !traced && matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let builder = SpanBuilder::from_name("request").with_kind(SpanKind::Server);
    let mut span = global::tracer("api").build_with_context(builder, &sender);
    if !span.is_recording() {
        return if traced { next.run(request).with_context(sender).await } else { next.run(request).await };
    }
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    span.update_name(format!("{} {route}", request.method()));
    span.set_attribute(KeyValue::new("http.request.method", request.method().to_string()));
    span.set_attribute(KeyValue::new("http.route", route));
    let context = sender.with_span(span);
    let response = next.run(request).with_context(context.clone()).await;
    let status = response.status();
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
    span.end();
    response
}
