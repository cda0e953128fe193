//! Keeps a step's lease while its attempt runs. A task of its own: CPU work in the step does not stop it, as long as
//! that work runs off the async threads.
//! Invariant: a lost lease, a cancellation, a pause or a drain reaches the attempt within a third of the lease.
use std::{sync::atomic::Ordering, time::Duration};

use sqlx::PgPool;
use tracing::{info, warn};

use crate::{
    ctx::Signals,
    error::chain,
    statements::{self, Lease, Renewed, Report},
};

/// Renews every third of `length` until dropped or until the lease is lost. An unreachable database is no reason to
/// give up: whether the lease was taken meanwhile shows when it is back.
pub(crate) async fn keep(pool: PgPool, lease: Lease, length: Duration, signals: Signals) {
    let mut ticks = tokio::time::interval(length / 3);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut said = 0;
    loop {
        ticks.tick().await;
        let (seen, log) = signals.lines(said).map_or((said, None), |(seen, lines)| (seen, Some(lines)));
        let report = Report { progress: signals.progress(), log };
        match renew(&pool, lease, length, &report).await {
            Ok(Renewed::Lost) => {
                info!("the step is ours no longer, stopping its attempt");
                return signals.cancelled.cancel();
            }
            Ok(wanted) => {
                said = seen;
                obey(wanted, &signals);
            }
            Err(error) => {
                warn!(error = chain(&error), "cannot renew the lease, trying again");
                // A third of the lease later might be too late.
                ticks.reset_after(length / 12);
            }
        }
    }
}

/// One renewal. A pool whose server is away tries again after ever longer waits, up to six seconds: longer than the lease that
/// others grant when it is back. So it is asked anew, which begins with short ones.
async fn renew(pool: &PgPool, lease: Lease, length: Duration, report: &Report) -> sqlx::Result<Renewed> {
    let connection = tokio::time::timeout(length / 3, pool.acquire()).await;
    let mut connection = connection.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    statements::renew(&mut *connection, lease, length, report).await
}

fn obey(wanted: Renewed, signals: &Signals) {
    match wanted {
        Renewed::CancelRequested => {
            if !signals.by_operator.swap(true, Ordering::Relaxed) {
                info!("the run was cancelled, stopping the step");
            }
            signals.cancelled.cancel();
        }
        Renewed::Paused | Renewed::Draining => {
            if !signals.stopping.is_cancelled() {
                let why = if wanted == Renewed::Paused { "it is paused" } else { "this worker is draining" };
                info!(why, "the step is asked to give itself back");
            }
            signals.stopping.cancel();
        }
        Renewed::Held | Renewed::Lost => {}
    }
}
