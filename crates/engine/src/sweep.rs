//! The sweep: every node, every second, no leader. It mends what no message will: expired leases, retries that have
//! come due, doorbells that were lost, runs nobody can run, cancellations that raced.
//!
//! Invariant: after an outage of the database (seen as a gap between sweeps) no lease is declared expired for one whole
//! lease, so that workers that could not renew get to: an outage costs no attempt.
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tracing::{info, warn};

use crate::{error::chain, statements};

/// How often the slow part runs, and what is old is deleted, in sweeps.
pub(crate) const SLOW: u32 = 30;

pub(crate) struct Sweeper {
    pub(crate) pool: PgPool,
    pub(crate) interval: Duration,
    pub(crate) lease: Duration,
    pub(crate) lost_after: Duration,
    pub(crate) stranded_after: Duration,
}

impl Sweeper {
    /// Sweeps until dropped.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_success = Instant::now();
        let mut spare_leases_until = last_success;
        for count in 0_u64.. {
            ticks.tick().await;
            if last_success.elapsed() > self.interval * 2 + self.lease / 2 {
                spare_leases_until = Instant::now() + self.lease;
            }
            let expire = Instant::now() >= spare_leases_until;
            match self.sweep(expire, count % u64::from(SLOW) == 0).await {
                Ok(()) => last_success = Instant::now(),
                Err(error) => {
                    spare_leases_until = Instant::now() + self.lease;
                    warn!(error = chain(&error), "cannot sweep, trying again");
                }
            }
        }
    }

    async fn sweep(&self, expire: bool, slow: bool) -> sqlx::Result<()> {
        let swept = statements::sweep(&self.pool, expire, self.lost_after).await?;
        if swept.expired > 0 {
            info!(attempts = swept.expired, "ended attempts whose lease had expired");
        }
        if slow {
            statements::fail_stranded(&self.pool, self.stranded_after).await?;
        }
        Ok(())
    }
}
