//! What this process counts, kept for Prometheus: the recorder behind the `metrics` facade, and what it is asked for.
//!
//! Buckets are fixed, so that histograms of several processes add up. A gauge that nobody sets any more goes: its network or role
//! is gone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::Exposition;
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use sqlx::PgPool;
use workflows::services::Services;

const CONNECTIONS: &str = "snapshots_db_pool_connections";
const BUILD: &str = "snapshots_build_info";
/// Longer than the longest time between two looks at figures.
const IDLE: Duration = Duration::from_secs(900);
/// How often what was recorded is sorted into buckets, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Seconds: a request is quick, a step takes from milliseconds to hours, a wait doubles up to an hour.
const REQUESTS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
const ATTEMPTS: [f64; 12] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 10_800.0, 36_000.0];
const DELAYS: [f64; 9] = [0.1, 0.5, 2.0, 8.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0];

/// Installs the recorder of this process, once, and says what each metric means.
///
/// # Errors
/// Another recorder is installed, or a bucket that makes no sense.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = INSTALLED.get() {
        return Ok(handle.clone());
    }
    let full = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(full("http_request_duration_seconds"), &REQUESTS)?
        .set_buckets_for_metric(full("snapshots_job_attempt_duration_seconds"), &ATTEMPTS)?
        .set_buckets_for_metric(full("snapshots_job_retry_delay_seconds"), &DELAYS)?
        .idle_timeout(MetricKindMask::GAUGE, Some(IDLE))
        .install_recorder()?;
    describe_gauge!(CONNECTIONS, "Connections of this process to a database, by state; max is how many it may have.");
    describe_gauge!(BUILD, "1, with the version of the program.");
    engine::describe_metrics();
    workflows::figures::describe_metrics();
    api::describe_metrics();
    Ok(INSTALLED.get_or_init(|| handle).clone())
}

/// Keeps histograms short though nobody scrapes; never ends.
pub(crate) async fn keep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// What `/metrics` answers.
pub(crate) fn exposition(handle: PrometheusHandle, services: &Services) -> Exposition {
    let (control, indexed) = (services.control.clone(), services.indexed.clone());
    Arc::new(move || {
        gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        connections("control", &control);
        connections("indexed", &indexed);
        handle.render()
    })
}

fn connections(pool: &'static str, of: &PgPool) {
    let idle = of.num_idle();
    let used = (of.size() as usize).saturating_sub(idle);
    let max = of.options().get_max_connections() as usize;
    for (state, count) in [("idle", idle), ("used", used), ("max", max)] {
        gauge!(CONNECTIONS, "pool" => pool, "state" => state).set(count as f64);
    }
}
