//! Completing steps together: whoever comes while others are being completed waits, and the next completion takes all who
//! wait. Nobody waits for others to come. Invariant: a step is completed alone if completing it with others did not work, so
//! no step's fault is another's.
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::oneshot;
use tracing::warn;

use crate::error::chain;
use crate::statements::{self, Finished, Lease, Report, Written};

/// At most so many in one transaction: whoever watches their runs waits for its end.
const MOST: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Together {
    waiting: Mutex<Vec<(Finished, oneshot::Sender<Written>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl Together {
    /// As [`statements::complete`].
    pub(crate) async fn complete(&self, pool: &PgPool, lease: Lease, output: &Value, report: &Report) -> sqlx::Result<Written> {
        let (told, mut hear) = oneshot::channel();
        let finished = Finished { lease, output: output.clone(), report: report.clone() };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((finished, told));
        loop {
            let _turn = self.turn.lock().await;
            // Those who had the turn before may have taken this one along.
            match hear.try_recv() {
                Ok(written) => return Ok(written),
                Err(oneshot::error::TryRecvError::Closed) => break,
                Err(oneshot::error::TryRecvError::Empty) => self.complete_waiting(pool).await,
            }
        }
        statements::complete(pool, lease, output, report).await
    }

    async fn complete_waiting(&self, pool: &PgPool) {
        let (finished, told) = self.take();
        match statements::complete_many(pool, &finished).await {
            Ok(written) => told.into_iter().zip(written).for_each(|(told, written)| {
                // An attempt that was dropped meanwhile hears nothing.
                let _ = told.send(written);
            }),
            Err(error) => {
                warn!(error = chain(&error), steps = finished.len(), "cannot complete steps together, trying each alone")
            }
        }
    }

    fn take(&self) -> (Vec<Finished>, Vec<oneshot::Sender<Written>>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(MOST);
        waiting.drain(..count).unzip()
    }
}
