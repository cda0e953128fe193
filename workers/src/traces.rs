//! Sends traces to an OpenTelemetry collector (OTLP over HTTP, protobuf), if one is named; else nothing is recorded at all.
//!
//! A thread of its own sends what is recorded, in batches. Invariant: nobody waits for the collector: what it does not take in
//! time is dropped, and at the end it gets [`PATIENCE`].

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::global;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;

use crate::exit::{Exit, Failure};

/// What names a collector (OpenTelemetry's own variables; the exporter reads these and the others of its specification).
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// How long a collector may take for one request, and for all that is left at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What sends traces, while there is something to send them to.
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Begins to record if the environment names a collector. What senders of requests say of their traces is understood anyway.
    ///
    /// # Errors
    /// An address that is none.
    pub(crate) fn start() -> Result<Self, Failure> {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        if disabled || !ENDPOINTS.into_iter().any(set) {
            return Ok(Self(None));
        }
        let useless = |error| {
            let failure = Failure::caused(Exit::Usage, "the collector of traces cannot be used", error);
            failure.hint("OTEL_EXPORTER_OTLP_ENDPOINT is like http://127.0.0.1:4318; leave it out to record no traces")
        };
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap_or_default();
        let client = OnRuntime { runtime: Handle::current(), client };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build().map_err(useless)?;
        let resource = Resource::builder();
        let resource = if set("OTEL_SERVICE_NAME") { resource } else { resource.with_service_name("secondlayer-snapshots") };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        global::set_tracer_provider(provider.clone());
        Ok(Self(Some(provider)))
    }

    /// Sends what is left.
    pub(crate) async fn stop(self) {
        let Some(provider) = self.0 else { return };
        let sent = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last traces did not reach the collector");
        }
    }
}

/// Sends on the process's runtime what the exporter's thread, which has none, wants sent.
#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    client: reqwest::Client,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
