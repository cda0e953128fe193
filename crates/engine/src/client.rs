//! What API and CLI do with runs: start, read, wait. Needs the workflows' shapes, not a worker. What operators do to
//! runs is in `operations` and `pause`, schedules are in `schedule`.
use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use crate::{
    catalog::Catalog,
    error::{StartError, WaitError},
    model::{Event, Run, RunDetail, RunId},
    moves::Moves,
    queries::{self, RunFilter},
    start::{self, StartRun},
};

/// How often a waiter looks without having been told.
const LOOK: Duration = Duration::from_secs(1);

/// Access to the ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) pool: PgPool,
    pub(crate) catalog: Catalog,
    pub(crate) moves: Moves,
}

impl Client {
    /// A client for the workflows in `catalog`; `pool` must come from [`crate::control_pool`].
    #[must_use]
    pub fn new(pool: PgPool, catalog: Catalog) -> Self {
        Self { moves: Moves::new(pool.clone()), pool, catalog }
    }

    /// The workflows that may be started.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Starts a run.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(&self, request: &StartRun) -> Result<RunId, StartError> {
        let mut tx = self.pool.begin().await?;
        let run = self.start_in(&mut tx, request).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Starts a run when the caller's transaction commits, and not at all if it does not. The connection's
    /// `search_path` must be the control pool's.
    ///
    /// # Errors
    /// See [`StartError`]; the transaction stays usable except after a database error.
    pub async fn start_in(&self, conn: &mut PgConnection, request: &StartRun) -> Result<RunId, StartError> {
        start::start(conn, &self.catalog, request, None).await
    }

    /// Runs, newest first, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn runs(&self, filter: &RunFilter, limit: u32) -> sqlx::Result<Vec<Run>> {
        queries::runs(&self.pool, filter, i64::from(limit)).await
    }

    /// One run.
    ///
    /// # Errors
    /// The database's.
    pub async fn run(&self, run: RunId) -> sqlx::Result<Option<Run>> {
        queries::run(&self.pool, run).await
    }

    /// One run with its steps and attempts.
    ///
    /// # Errors
    /// The database's.
    pub async fn detail(&self, run: RunId) -> sqlx::Result<Option<RunDetail>> {
        queries::detail(&self.pool, run).await
    }

    /// The run's log after event `after` (0 for the beginning), at most `limit` lines.
    ///
    /// # Errors
    /// The database's.
    pub async fn events(&self, run: RunId, after: i64, limit: u32) -> sqlx::Result<Vec<Event>> {
        queries::events(&self.pool, run, after, i64::from(limit)).await
    }

    /// Waits until the run has ended. All who wait share one connection; bound it with a timeout of your own.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait(&self, run: RunId) -> Result<Run, WaitError> {
        let mut waiter = self.moves.subscribe();
        loop {
            let found = queries::run(&self.pool, run).await?.ok_or(WaitError::UnknownRun { run })?;
            if found.state.is_finished() {
                return Ok(found);
            }
            let _ = tokio::time::timeout(LOOK, waiter.told(Some(run))).await;
        }
    }
}
