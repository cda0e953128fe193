//! Hears that runs have moved: one listening connection for everybody who waits in this process, and none while nobody
//! does. Invariant: when the connection is made anew everybody looks, since a notification may have been missed.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{PgPool, postgres::PgListener};
use tokio::{sync::broadcast, task::JoinHandle};
use tracing::warn;

use crate::{consequence, error::chain, model::RunId};

/// How long the connection is kept when nobody waits any more.
const IDLE: Duration = Duration::from_secs(5);

/// Notifications that a waiter may be behind before it is told just to look.
const BEHIND: usize = 256;

/// Who is to look: everybody (`None`), or those who wait for this run.
type Moved = Option<RunId>;

#[derive(Debug, Clone)]
pub(crate) struct Moves(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    told: broadcast::Sender<Moved>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Moves {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self(Arc::new(Shared { pool, told: broadcast::Sender::new(BEHIND), listener: Mutex::default() }))
    }

    /// Somebody who waits. Look once after this, then whenever told.
    pub(crate) fn subscribe(&self) -> Waiter {
        let mut listener = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.0.told.subscribe();
        if listener.as_ref().is_none_or(JoinHandle::is_finished) {
            *listener = Some(tokio::spawn(listen(Arc::clone(&self.0))));
        }
        Waiter(told)
    }
}

/// Hears of moves.
pub(crate) struct Waiter(broadcast::Receiver<Moved>);

impl Waiter {
    /// Resolves when `run`, or with none any run, may have moved.
    pub(crate) async fn told(&mut self, run: Option<RunId>) {
        loop {
            match self.0.recv().await {
                Ok(Some(moved)) if run.is_some_and(|run| run != moved) => {}
                _ => return,
            }
        }
    }
}

/// Listens until nobody waits, or the pool closes.
async fn listen(shared: Arc<Shared>) {
    let mut closed = std::pin::pin!(shared.pool.close_event());
    loop {
        tokio::select! {
            ended = listen_once(&shared) => match ended {
                Ok(()) => return,
                Err(error) => warn!(error = chain(&error), "cannot hear of runs that move, looking every second meanwhile"),
            },
            () = &mut closed => return,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Ok: nobody waits any more.
async fn listen_once(shared: &Shared) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&shared.pool).await?;
    listener.listen(consequence::RUN_CHANNEL).await?;
    let tell = |moved| {
        // An error says that nobody waits.
        let _ = shared.told.send(moved);
    };
    tell(None);
    loop {
        match tokio::time::timeout(IDLE, listener.try_recv()).await {
            // Not a run's id: nobody of ours sent it.
            Ok(Ok(Some(notification))) => tell(notification.payload().parse().ok()),
            Ok(Ok(None)) => tell(None),
            Ok(Err(error)) => return Err(error),
            Err(_) if shared.is_unheard() => return Ok(()),
            Err(_) => {}
        }
    }
}

impl Shared {
    /// Whether nobody waits; whoever begins to wait from now on starts a listener of their own.
    fn is_unheard(&self) -> bool {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let unheard = self.told.receiver_count() == 0;
        if unheard {
            *listener = None;
        }
        unheard
    }
}
