//! The loop that fires schedules: beside the sweep, since it asks others what a run needs, and leases do not wait for
//! them. Any number of processes may run it. Invariant: an outage of the database ends it not, it looks again.
use std::time::Duration;

use sqlx::PgPool;
use tracing::warn;

use crate::{catalog::Catalog, error::chain, fire, sweep::SLOW};

pub(crate) struct Scheduler {
    pub(crate) pool: PgPool,
    pub(crate) catalog: Catalog,
    pub(crate) interval: Duration,
}

impl Scheduler {
    /// Fires what comes due until dropped.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for count in 0_u64.. {
            ticks.tick().await;
            if let Err(error) = self.look(count % u64::from(SLOW) == 0).await {
                warn!(error = chain(&error), "cannot look for schedules that are due, trying again");
            }
        }
    }

    async fn look(&self, slow: bool) -> sqlx::Result<()> {
        fire::fire_due(&self.pool, &self.catalog, None).await?;
        if slow {
            fire::set_back(&self.pool).await?;
        }
        Ok(())
    }
}
