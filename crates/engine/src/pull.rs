//! Pull loops, and their beginning anew when the database fails them.
//! Invariant: what a loop had fetched when it ended is heard by others within a sweep, not when apalis misses the loop.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::join_all};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::{
    doorbell::{self, OnRing, Puller},
    engine::EngineConfig,
    error::BoxError,
    model::Queue,
    runner::Runner,
    wake::Wakes,
};

/// Pull loops per queue: one fetches a doorbell a time, so a few of them keep more slots busy with short steps.
const PULLERS: usize = 4;

/// Steps of queue `deliver` wait for others most of their time: one loop keeps their slots busy.
const fn pullers(queue: Queue) -> usize {
    if matches!(queue, Queue::Deliver) { 1 } else { PULLERS }
}

/// Takes steps from the queues of this process until it is asked to stop.
pub(crate) async fn pull<S: Send + Sync + 'static>(config: &EngineConfig, runner: &Arc<Runner<S>>, wakes: &Wakes) {
    let places = config.queues.iter().flat_map(|queue| {
        let (slots, claims) = (config.slots(*queue), config.claims(*queue));
        let permits = Arc::new(Semaphore::new(slots));
        // Where a doorbell stands for all steps of the queue, one is answered at a time.
        let loops = if claims > 1 { 1 } else { slots.min(pullers(*queue)) };
        let concurrency = if claims > 1 { 1 } else { slots.div_ceil(loops) };
        (0..loops).map(|no| (*queue, no, concurrency, claims, Arc::clone(&permits))).collect::<Vec<_>>()
    });
    let loops = places.map(|(queue, no, concurrency, claims, permits)| {
        Supervisor { runner, wakes, queue, no, concurrency, claims, permits }.run().boxed()
    });
    join_all(loops).await;
    runner.shutdown.soft.cancelled().await;
}

/// Keeps one pull loop going.
struct Supervisor<'a, S> {
    runner: &'a Arc<Runner<S>>,
    wakes: &'a Wakes,
    queue: Queue,
    no: usize,
    concurrency: usize,
    claims: usize,
    permits: Arc<Semaphore>,
}

impl<S: Send + Sync + 'static> Supervisor<'_, S> {
    async fn run(self) {
        let soft = &self.runner.shutdown.soft;
        let mut draining = self.runner.draining.clone();
        let mut wait = Duration::from_millis(100);
        for restart in 0_u64.. {
            if soft.run_until_cancelled(draining.wait_for(|draining| !draining)).await.is_none() {
                return;
            }
            let begun = Instant::now();
            let mut told = draining.clone();
            let stop = soft.clone().run_until_cancelled_owned(async move { told.wait_for(|draining| *draining).await.is_ok() });
            let ended = self.pull(restart, stop.map(drop)).await;
            if soft.is_cancelled() {
                return;
            }
            match ended {
                Ok(()) if *draining.borrow() => continue,
                Ok(()) => warn!(queue = %self.queue, "a pull loop ended by itself, starting a new one"),
                Err(error) => warn!(queue = %self.queue, %error, "a pull loop failed, starting a new one"),
            }
            if begun.elapsed() > Duration::from_secs(30) {
                wait = Duration::from_millis(100);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = soft.cancelled() => return,
            }
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Pulls until it is to stop or the database fails.
    async fn pull(&self, restart: u64, stop: impl Future<Output = ()> + Send) -> Result<(), BoxError> {
        if restart > 0 {
            doorbell::release(&self.runner.pool, &self.names()).await?;
        }
        self.puller(restart).run(stop).await
    }

    /// What the names of these loops begin with, one after the other. See also `unheard` in consequences.sql.
    fn names(&self) -> String {
        format!("{}/{}/{}/", self.runner.claimant.worker, self.queue, self.no)
    }

    fn puller(&self, restart: u64) -> Puller {
        let (runner, permits) = (Arc::clone(self.runner), Arc::clone(&self.permits));
        let (queue, claims) = (self.queue, self.claims);
        let on_ring: OnRing = match claims {
            1 => Arc::new(move |step| Arc::clone(&runner).answer(step, Arc::clone(&permits)).boxed()),
            most => Arc::new(move |_| Arc::clone(&runner).answer_many(queue, Arc::clone(&permits), most).boxed()),
        };
        Puller {
            pool: self.runner.pool.clone(),
            queue: self.queue,
            name: format!("{}{restart}", self.names()),
            concurrency: self.concurrency,
            signals: self.wakes.subscribe(self.queue),
            on_ring,
        }
    }
}
