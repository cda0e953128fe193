//! The sweep: every node, every second and in the moment a lease expires, no leader. It mends what no message will: expired
//! leases, retries that have come due, doorbells that were lost, runs nobody can run, cancellations that raced.
//!
//! Invariant: after an outage of the database (seen as a gap between its answers) no lease is declared expired for one
//! whole lease, so that workers that could not renew get to: an outage costs no attempt.
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tracing::{info, warn};

use crate::{error::chain, meter, statements};

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
        let mut outages = Outages::new(self.interval, self.lease);
        for count in 0_u64.. {
            let mut wait = self.interval;
            match self.sweep(&mut outages, count % u64::from(SLOW) == 0).await {
                Ok(next) => {
                    outages.last_answer = Instant::now();
                    // Leases are renewed long before: one that is about to expire is most likely a dead process's.
                    wait = next.map_or(wait, |next| wait.min(next));
                }
                Err(error) => warn!(error = chain(&error), "cannot sweep, trying again"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns the time until the next lease expires.
    async fn sweep(&self, outages: &mut Outages, slow: bool) -> sqlx::Result<Option<Duration>> {
        // The pool waits for a server that is away, and a connection it gives was tried: only now it shows how long that was.
        let mut conn = self.pool.acquire().await?;
        // On this connection, lest an outage that begins now is waited out and then judged by.
        let gone_after = self.lease * 3 / 4;
        let swept = statements::sweep(&mut *conn, outages.answered(), self.lost_after, gone_after).await?;
        if swept.expired > 0 {
            meter::lost(swept.expired);
            info!(attempts = swept.expired, "ended attempts whose lease had expired");
        }
        drop(conn);
        if slow {
            statements::fail_stranded(&self.pool, self.stranded_after).await?;
        }
        // A moment later it is over, not about to be.
        Ok(swept.next_ms.and_then(|ms| u64::try_from(ms).ok()).map(|ms| Duration::from_millis(ms + 5)))
    }
}

/// Remembers when the database answered last, and for how long leases are spared because it did not for a while.
struct Outages {
    last_answer: Instant,
    spare_until: Instant,
    /// A longer time without an answer was an outage. A lease outlasts it: it is renewed every third of its length, and
    /// every twelfth while that fails.
    longest_gap: Duration,
    lease: Duration,
}

impl Outages {
    fn new(interval: Duration, lease: Duration) -> Self {
        let now = Instant::now();
        Self { last_answer: now, spare_until: now, longest_gap: interval + lease / 4, lease }
    }

    /// Notes an answer, and says whether leases may be judged.
    fn answered(&mut self) -> bool {
        let now = Instant::now();
        let gap = now - self.last_answer;
        if gap > self.longest_gap {
            warn!(seconds = gap.as_secs_f64(), "the database was away; leases that ran out meanwhile may still be renewed");
            self.spare_until = now + self.lease;
        }
        self.last_answer = now;
        now >= self.spare_until
    }
}
