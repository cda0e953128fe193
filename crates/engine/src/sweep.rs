//! The sweep: every node, every second, no leader. It mends what no message will: expired leases, retries that have
//! come due, doorbells that were lost, runs nobody can run, cancellations that raced.
//!
//! Invariant: after an outage of the database (seen as a gap between sweeps) no lease is declared expired for one whole
//! lease, so that workers that could not renew get to: an outage costs no attempt.
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tracing::{info, warn};

use crate::{doorbell, error::chain, queries, statements};

/// How many doorbells one sweep rings at most.
const RINGS: i64 = 500;
/// How many expired leases one sweep ends at most.
const EXPIRIES: usize = 500;
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
        if expire {
            for _ in 0..EXPIRIES {
                match statements::expire_one(&self.pool, rand::random()).await? {
                    Some(step) => info!(step.id = %step, "ended an attempt whose lease had expired"),
                    None => break,
                }
            }
        }
        doorbell::ring_unheard(&self.pool, self.lost_after, RINGS).await?;
        statements::mark_retrying(&self.pool, None).await?;
        statements::mark_paused(&self.pool).await?;
        for run in queries::cancelling(&self.pool).await? {
            statements::cancel(&self.pool, run).await?;
        }
        if slow {
            statements::fail_stranded(&self.pool, self.stranded_after).await?;
        }
        Ok(())
    }
}
