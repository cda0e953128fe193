//! Passes apalis's notifications on to the pull loops: one listening connection for all of them.
//! Invariant: after a lost connection every loop is woken, since a notification may have been missed.
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::channel::mpsc;
use sqlx::{PgPool, postgres::PgListener};
use tracing::warn;

use crate::{doorbell, error::chain, model::Queue};

#[derive(Default)]
pub(crate) struct Wakes(Mutex<HashMap<Queue, Vec<mpsc::Sender<()>>>>);

impl Wakes {
    /// A receiver that hears of doorbells on `queue`. It holds one signal at most: more say nothing more.
    pub(crate) fn subscribe(&self, queue: Queue) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel(0);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(queue).or_default().push(sender);
        receiver
    }

    fn wake(&self, queue: Option<Queue>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, senders) in all.iter_mut().filter(|(key, _)| queue.is_none_or(|queue| queue == **key)) {
            // Full is fine, closed is a loop that has ended.
            senders.retain_mut(|sender| sender.try_send(()).err().is_none_or(|error| error.is_full()));
        }
    }

    /// Listens until dropped.
    pub(crate) async fn listen(&self, pool: &PgPool) {
        loop {
            if let Err(error) = self.listen_once(pool).await {
                warn!(error = chain(&error), "cannot listen for doorbells, polling meanwhile");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(doorbell::CHANNEL).await?;
        self.wake(None);
        loop {
            match listener.try_recv().await? {
                Some(notification) => {
                    // A queue this binary does not know is nobody's business here.
                    if let Some(queue) = doorbell::notified_queue(notification.payload()) {
                        self.wake(Some(queue));
                    }
                }
                None => return Ok(()),
            }
        }
    }
}
