//! Our own restore as a part of a step: it tells the step's progress, gives itself back when the process stops, and says whether
//! trying again can help.

use std::sync::Arc;

use engine::{Ctx, StepError};
use snapshot::fetch::{Opened, Source};
use snapshot::load::{self, LoadError, Options, Outcome, Selection, Watch};
use sqlx::PgPool;
use tokio::runtime::Handle;

use crate::services::Services;
use crate::step_error::Classify;

/// Restores a snapshot into the database behind `pool` (see [`load::connect`]), or goes on with what an earlier attempt began there.
///
/// # Errors
/// `Ok(Err(_))`: the restore did not come to its end, see [`LoadError`]. [`StepError::Yield`] where the process is to stop.
pub(crate) async fn into_database(
    ctx: &Ctx<Services>,
    pool: &PgPool,
    (source, opened): (&Source, &Arc<Opened>),
    options: &Options,
) -> Result<Result<Outcome, LoadError>, StepError> {
    let (told, pool, source, opened, options) =
        (Told(ctx.clone()), pool.clone(), source.clone(), Arc::clone(opened), options.clone());
    apart(ctx, async move || load::restore(&pool, &source, &opened, &options, &told).await).await
}

/// Runs long work on a thread of its own, which it keeps busy, to its end; or drops it and gives the step back when the process is
/// to stop.
pub(crate) async fn apart<T: Send + 'static>(
    ctx: &Ctx<Services>,
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> Result<T, StepError> {
    let (runtime, stopping, cancelled) = (Handle::current(), ctx.stop_token().clone(), ctx.cancel_token().clone());
    ctx.blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                done = work() => Ok(done),
                () = stopping.cancelled() => Err(StepError::Yield),
                () = cancelled.cancelled() => Err(StepError::Yield),
            }
        })
    })
    .await
}

/// Runs `work` to its end, or drops it and gives the step back when the process is to stop.
pub(crate) async fn unless_stopped<T>(ctx: &Ctx<Services>, work: impl Future<Output = T>) -> Result<T, StepError> {
    tokio::select! {
        done = work => Ok(done),
        () = ctx.stop_token().cancelled() => Err(StepError::Yield),
    }
}

/// The usual way, with as many connections as this machine has processors, at most 8. Nothing is checked at the end.
pub(crate) fn options(free_at: fn(&std::path::Path) -> Option<u64>) -> Options {
    Options {
        jobs: jobs(),
        selection: Selection::default(),
        fast: false,
        check_first: false,
        vacuum: true,
        verify: false,
        deep: false,
        free_disk: None,
        free_at,
    }
}

/// Connections that work at once.
pub(crate) fn jobs() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(1, 8)
}

/// Progress of a restore as progress of its step.
struct Told(Ctx<Services>);

impl Watch for Told {
    fn step(&self, number: usize, of: usize, name: &str) {
        tracing::info!(number, of, name, "restore");
    }

    fn progress(&self, done: u64, total: u64, unit: &'static str) {
        self.0.progress(done, total, unit);
    }

    fn note(&self, text: &str) {
        tracing::info!(text, "restore");
    }
}

impl Classify for LoadError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_unreachable(),
            Self::Database { source, .. } | Self::Verify(source) => source.is_retryable(),
            Self::Busy | Self::Panicked => true,
            Self::Refused(_) | Self::Selection(_) | Self::Schema(_) | Self::Chunk { .. } | Self::NotUpdatable(_) => false,
        }
    }
}

/// True where what is published is itself at fault, and not the way to it or the database.
pub(crate) fn is_damage(error: &LoadError) -> bool {
    match error {
        LoadError::Fetch(fetch) => fetch.is_damage(),
        LoadError::Schema(_) | LoadError::Chunk { .. } => true,
        _ => false,
    }
}
