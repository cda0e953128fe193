//! Traces: what asks for a run and each attempt at its steps reach a collector, linked; without one nothing is recorded, and one
//! that hangs hurts nobody.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Hold, Receiver, ServiceProcess, Site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const SENT_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENT_SPAN: &str = "00f067aa0ba902b7";

/// A service that sends traces to a collector at once.
async fn serve(site: &Site, collector: &str, name: &str) -> ServiceProcess {
    let dir = site.dir.path().join(name);
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("SNAPSHOTS_DATA_DIR", dir.to_str().unwrap()),
    ];
    site.serve_with(&env).await
}

/// Asks for a snapshot as somebody who traces it.
async fn ask(service: &ServiceProcess) -> String {
    let request = reqwest::Client::new()
        .post(format!("{}/workflows/snapshot/runs", service.url))
        .header("traceparent", format!("00-{SENT_TRACE}-{SENT_SPAN}-01"))
        .json(&json!({}));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["runId"].as_str().unwrap().to_owned()
}

/// All spans that a collector was sent.
fn spans(collector: &Receiver) -> Vec<Span> {
    let mut all = Vec::new();
    for received in collector.received() {
        assert_eq!(
            (received.path.as_str(), &received.headers["content-type"]),
            ("/v1/traces", &"application/x-protobuf".parse().unwrap())
        );
        let sent = ExportTraceServiceRequest::decode(received.body).unwrap();
        for of in sent.resource_spans {
            let service = of.resource.unwrap().attributes.into_iter().find(|one| one.key == "service.name").unwrap();
            assert!(format!("{service:?}").contains("secondlayer-snapshots"));
            all.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    all
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("no {key}: {span:?}"));
    format!("{:?}", found.value)
}

/// Links of a span, as (trace, span).
fn links(span: &Span) -> Vec<(String, String)> {
    span.links.iter().map(|link| (hex::encode(&link.trace_id), hex::encode(&link.span_id))).collect()
}

async fn traceparent(pool: &PgPool, run: &str) -> Option<String> {
    let sql = "select traceparent from snapshots.run where id = $1::uuid";
    sqlx::query_scalar(sql).bind(run).fetch_one(pool).await.unwrap()
}

/// Traces of attempts at a step, oldest first.
async fn traces_of(pool: &PgPool, run: &str, step: &str) -> Vec<(Option<String>, Option<String>)> {
    let sql = "select a.trace_id, a.span_id from snapshots.attempt a join snapshots.step s on s.id = a.step_id
               where s.run_id = $1::uuid and s.name = $2 order by a.lease_token";
    sqlx::query_as(sql).bind(run).bind(step).fetch_all(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_a_trace_of_its_own_with_links_to_the_request_and_the_attempt_before() {
    let site = site_with_chain(60).await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    let collector = Receiver::start(&[503]).await;
    let first = serve(&site, &collector.url, "first").await;
    let hold = Hold::on_success(&pool, "compress").await;
    let run = ask(&first).await;
    hold.reached().await;
    wait_until(PATIENCE, "the attempt's trace is noted", async || traces_of(&pool, &run, "compress").await[0].0.is_some()).await;
    first.kill().await;
    hold.abandon().await;
    let second = serve(&site, &collector.url, "second").await;
    let ended = second.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    // An attempt's end does not wait for the note about its trace.
    wait_until(PATIENCE, "the API tells each attempt's trace", async || {
        let shown = second.json(&format!("/runs/{run}")).await;
        shown["attempts"].as_array().unwrap().iter().all(|attempt| attempt["traceId"].as_str().is_some_and(|id| id.len() == 32))
    })
    .await;
    assert!(second.terminate().await.success());

    let spans = spans(&collector);
    let request = named(&spans, "POST /workflows/{name}/runs")[0];
    assert_eq!((hex::encode(&request.trace_id), hex::encode(&request.parent_span_id)), (SENT_TRACE.into(), SENT_SPAN.into()));
    assert!(attribute(request, "http.response.status_code").contains("202"));
    let asked = named(&spans, "start snapshot")[0];
    assert_eq!((&asked.trace_id, &asked.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(asked.kind, SpanKind::Producer as i32);
    let asked = (hex::encode(&asked.trace_id), hex::encode(&asked.span_id));
    assert_eq!(traceparent(&pool, &run).await, Some(format!("00-{}-{}-01", asked.0, asked.1)));

    let steps = ["plan", "dump", "compress", "checksum", "upload", "publish", "promote"];
    let mut seen = Vec::new();
    for step in steps {
        for attempt in named(&spans, &format!("snapshot {step}")) {
            assert!(attempt.parent_span_id.is_empty() && attempt.kind == SpanKind::Consumer as i32, "{attempt:?}");
            assert_eq!(links(attempt)[0], asked, "{step}");
            assert!(attribute(attempt, "snapshots.run.id").contains(&run));
            assert!(attribute(attempt, "snapshots.outcome").contains("ok"));
            let trace = hex::encode(&attempt.trace_id);
            assert!(!seen.contains(&trace) && trace != SENT_TRACE, "two attempts in one trace");
            let told = (Some(trace.clone()), Some(hex::encode(&attempt.span_id)));
            assert!(traces_of(&pool, &run, step).await.contains(&told), "the ledger names another trace");
            seen.push(trace);
        }
    }
    // The span of the first attempt at compress died with its process, and spans before it may have.
    assert!(seen.len() >= 5, "{seen:?}");
    let again = named(&spans, "snapshot compress");
    assert_eq!(again.len(), 1);
    let before = traces_of(&pool, &run, "compress").await[0].clone();
    assert_eq!(links(again[0])[1], (before.0.unwrap(), before.1.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_recorded_and_one_that_hangs_or_refuses_hurts_nobody() {
    let site = site_with_chain(60).await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    let off = site.serve().await;
    let run = ask(&off).await;
    assert_eq!(off.ended(&run).await["state"], "succeeded");
    assert_eq!(traceparent(&pool, &run).await, Some(format!("00-{SENT_TRACE}-{SENT_SPAN}-01")), "who asked is remembered");
    let untraced = off.start_run().await;
    assert_eq!(off.ended(&untraced).await["state"], "succeeded");
    assert_eq!(traceparent(&pool, &untraced).await, None);
    assert!(traces_of(&pool, &run, "plan").await.iter().all(|(trace, span)| trace.is_none() && span.is_none()));
    assert!(off.terminate().await.success());

    // Takes connections, never answers.
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = serve(&site, &format!("http://{}", hung.local_addr().unwrap()), "hung").await;
    service.cut().await;
    assert!(service.terminate().await.success());
    drop(hung);
    let service = serve(&site, "http://127.0.0.1:1", "refused").await;
    service.cut().await;
    assert!(service.terminate().await.success());
    let mut wrong = site.command();
    wrong.args(["serve", "--json", "--listen", "127.0.0.1:0"]).env("OTEL_EXPORTER_OTLP_ENDPOINT", "not an address");
    crate::support::run(&mut wrong).await.error_with(2, &["OTEL_EXPORTER_OTLP_ENDPOINT"]);
}
