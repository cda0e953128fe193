//! Keeps a step's lease while its attempt runs. A task of its own: CPU work in the step does not stop it, as long as
//! that work runs off the async threads.
//! Invariant: a lost lease or a cancelled run reaches the attempt within a third of the lease.
use std::{sync::atomic::Ordering, time::Duration};

use sqlx::PgPool;
use tracing::{info, warn};

use crate::{
    ctx::Signals,
    error::chain,
    statements::{self, Lease, Renewed},
};

/// Renews every third of `length` until dropped or until the lease is lost. An unreachable database is no reason to
/// give up: whether the lease was taken meanwhile shows when it is back.
pub(crate) async fn keep(pool: PgPool, lease: Lease, length: Duration, signals: Signals) {
    let mut ticks = tokio::time::interval(length / 3);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let progress = signals.progress.borrow().clone();
        match statements::renew(&pool, lease, length, progress.as_ref()).await {
            Ok(Renewed::Held) => {}
            Ok(Renewed::CancelRequested) => {
                if !signals.by_operator.swap(true, Ordering::Relaxed) {
                    info!(step.id = %lease.step, "the run was cancelled, stopping the step");
                }
                signals.cancelled.cancel();
            }
            Ok(Renewed::Lost) => {
                info!(step.id = %lease.step, "the step is ours no longer, stopping its attempt");
                signals.cancelled.cancel();
                return;
            }
            Err(error) => warn!(step.id = %lease.step, error = chain(&error), "cannot renew the lease, trying again"),
        }
    }
}
