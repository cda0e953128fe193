//! Figures for monitoring that must be read from a database: computed by one process at a time, shown by all.
//!
//! Each source has a row: whose process computes it is decided by a lease in that row, what it found is stored there, and every
//! process sets its gauges from there. A scrape therefore asks no database, and N processes ask as often as one.
//! Invariant: only the holder of a source stores its figures; what was found last is shown until something newer is, with its
//! time beside it.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use metrics::{Label, Unit, describe_gauge, gauge};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, types::Json};
use tracing::warn;

use crate::{
    error::{BoxError, chain},
    statements::millis,
};

/// The shortest lease: a process that is only slow for a moment stays chosen.
const LEASE: Duration = Duration::from_secs(5);

const AT: &str = "snapshots_figures_last_success_timestamp_seconds";

/// One value of one gauge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Sample {
    /// A value of the gauge `name`, whose labels are of closed sets.
    #[must_use]
    pub fn new(name: &str, labels: &[(&str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name: name.to_owned(), labels, value }
    }

    fn set(&self) {
        let labels: Vec<Label> = self.labels.iter().map(|(name, value)| Label::new(name.clone(), value.clone())).collect();
        gauge!(self.name.clone(), labels).set(self.value);
    }
}

type Measure = dyn Fn() -> BoxFuture<'static, Result<Vec<Sample>, BoxError>> + Send + Sync;

/// Something that finds figures.
#[derive(Clone)]
pub struct Source {
    name: &'static str,
    measure: Arc<Measure>,
}

impl Source {
    /// A source by the name of its row, which stays for ever. `measure` returns all its series, zeros included.
    pub fn new<F>(name: &'static str, measure: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<Sample>, BoxError>> + Send + 'static,
    {
        Self { name, measure: Arc::new(move || measure().boxed()) }
    }
}

pub(crate) fn describe() {
    describe_gauge!(AT, Unit::Seconds, "When the figures that are read from the databases were computed last, by their source.");
}

/// Computes what this process is chosen for, and shows everything.
pub(crate) struct Figures {
    pub(crate) pool: PgPool,
    /// This process in the ledger.
    pub(crate) worker: String,
    pub(crate) interval: Duration,
    pub(crate) sources: Vec<Source>,
}

impl Figures {
    /// Goes on until dropped.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut shown = Vec::new();
        loop {
            ticks.tick().await;
            for source in &self.sources {
                if let Err(error) = self.compute(source).await {
                    warn!(source = source.name, error = chain(&*error), "figures could not be computed, trying again");
                }
            }
            match stored(&self.pool).await {
                Ok(found) => shown = found,
                Err(error) => warn!(error = chain(&error), "figures could not be read, showing the last ones"),
            }
            shown.iter().for_each(Stored::set);
        }
    }

    async fn compute(&self, source: &Source) -> Result<(), BoxError> {
        if !elect(&self.pool, source.name, &self.worker, (self.interval * 2).max(LEASE)).await? {
            return Ok(());
        }
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let series = tokio::time::timeout(self.interval, (source.measure)()).await.map_err(late)??;
        Ok(store(&self.pool, source.name, &self.worker, &series).await?)
    }
}

/// Whether this process computes a source now: it does already, or nobody does.
async fn elect(pool: &PgPool, source: &str, worker: &str, lease: Duration) -> sqlx::Result<bool> {
    let sql = "insert into snapshots.figures as f (source, holder, held_until) \
         values ($1, $2, now() + $3 * interval '1 millisecond') \
         on conflict (source) do update set holder = excluded.holder, held_until = excluded.held_until \
         where f.holder = excluded.holder or f.held_until < now() \
             or not exists (select 1 from snapshots.worker w where w.id = f.holder)";
    let done = sqlx::query(sql).bind(source).bind(worker).bind(millis(lease)).execute(pool).await?;
    Ok(done.rows_affected() == 1)
}

async fn store(pool: &PgPool, source: &str, worker: &str, series: &[Sample]) -> sqlx::Result<()> {
    let sql = "update snapshots.figures set at = now(), series = $3 where source = $1 and holder = $2";
    sqlx::query(sql).bind(source).bind(worker).bind(Json(series)).execute(pool).await?;
    Ok(())
}

/// What was found last.
#[derive(sqlx::FromRow)]
struct Stored {
    source: String,
    at: DateTime<Utc>,
    series: Json<Vec<Sample>>,
}

impl Stored {
    fn set(&self) {
        self.series.iter().for_each(Sample::set);
        let at = self.at.timestamp_millis() as f64 / 1e3;
        Sample::new(AT, &[("source", &self.source)], at).set();
    }
}

async fn stored(pool: &PgPool) -> sqlx::Result<Vec<Stored>> {
    sqlx::query_as("select source, at, series from snapshots.figures where at is not null").fetch_all(pool).await
}
