//! Claims whose answer was lost on the way: the ledger says that this process holds a step, and nothing here runs it. Such
//! steps are given back, so that a broken connection costs no attempt and nobody waits for a lease that nobody renews.
//!
//! Invariant: given back is only what no attempt of this process held at two looks, so not what a claim brings in between.
//! Were it given back wrongly all the same, the lease token would fence the attempt.
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::{
    error::chain,
    statements::{self, Claimant, Ending, Lease, Report},
};

/// The leases that attempts of this process hold.
#[derive(Debug, Default)]
pub(crate) struct Held {
    tokens: Mutex<HashSet<i64>>,
    in_doubt: Notify,
}

/// A lease that an attempt holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Holding {
    held: Arc<Held>,
    token: i64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.tokens().remove(&self.token);
    }
}

/// A claim under way. Dropped without an answer, it leaves a doubt.
#[derive(Debug)]
pub(crate) struct Claiming<'a> {
    held: Option<&'a Held>,
}

impl Claiming<'_> {
    /// The database said what was claimed.
    pub(crate) fn answered(mut self) {
        self.held = None;
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held {
            held.in_doubt.notify_one();
        }
    }
}

impl Held {
    /// Notes that an attempt has begun.
    pub(crate) fn hold(self: &Arc<Self>, lease: Lease) -> Holding {
        self.tokens().insert(lease.token);
        Holding { held: Arc::clone(self), token: lease.token }
    }

    /// To be called before a claim, since even one that is dropped may take effect.
    pub(crate) fn claiming(&self) -> Claiming<'_> {
        Claiming { held: Some(self) }
    }

    /// Gives back what nobody heard of, after each doubt, as soon as the database answers; never ends.
    pub(crate) async fn give_back_unheard(&self, pool: &PgPool, claimant: &Claimant) {
        // Time for claims and answers that are on their way, short of a renewal's.
        let wait = (claimant.lease / 12).min(Duration::from_secs(1));
        loop {
            self.in_doubt.notified().await;
            tokio::time::sleep(wait).await;
            while let Err(error) = self.settle(pool, &claimant.worker, wait).await {
                warn!(error = chain(&error), "cannot look for claims whose answer was lost, trying again");
                tokio::time::sleep(wait).await;
            }
        }
    }

    async fn settle(&self, pool: &PgPool, worker: &str, wait: Duration) -> sqlx::Result<()> {
        let before = self.unheard(pool, worker).await?;
        if before.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        for lease in self.unheard(pool, worker).await?.into_iter().filter(|lease| before.contains(lease)) {
            info!(step.id = %lease.step, "the answer to a claim was lost: giving the step back");
            let unspent = Ending::Yielded { after: Duration::ZERO };
            statements::end(pool, lease, &unspent, &Report::default()).await?;
        }
        Ok(())
    }

    /// What the ledger says this worker holds and no attempt does.
    async fn unheard(&self, pool: &PgPool, worker: &str) -> sqlx::Result<Vec<Lease>> {
        let sql = "select id as step, lease_token as token from snapshots.step where state = 'running' and worker = $1";
        let mut leases: Vec<Lease> = sqlx::query_as(sql).bind(worker).fetch_all(pool).await?;
        let tokens = self.tokens();
        leases.retain(|lease| !tokens.contains(&lease.token));
        Ok(leases)
    }

    fn tokens(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
