//! Whole objects over lines that break: what a request left is asked for as a range, until the object is whole.
//!
//! Invariant: bytes that arrived are not asked for again, unless the server ignores ranges; a server that drips is given up like one
//! that is silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{FetchError, PROGRESS_BYTES, Pace};

/// When to ask again, and when to stop asking.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often in a row a request may bring nothing.
    pub(super) tries: u32,
    /// Within this a request must bring [`PROGRESS_BYTES`], or its end.
    pub(super) silence: Duration,
    /// The wait before try number n + 1.
    pub(super) pause: fn(u32) -> Duration,
}

/// Pause before try number `tries` + 1: 100 ms, doubled each time up to 5 s.
pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(50 * 2_u64.pow(tries.min(7))).min(Duration::from_secs(5))
}

/// What a request brings.
pub(super) struct Answer {
    /// Where in the object it begins.
    pub(super) from: u64,
    /// How much of it comes, where the server says so.
    pub(super) length: Option<u64>,
    /// It; an error is a connection that broke.
    pub(super) body: BoxStream<'static, Result<Bytes, String>>,
}

/// Why a request brought nothing.
pub(super) enum Failed {
    /// Worth another try, and why.
    Broken(String),
    /// There are no such bytes, or the server does not know ranges after all.
    NoSuchRange,
    /// Another try will not help.
    Final(FetchError),
}

/// A place that gives an object from some byte on.
pub(super) trait Ranged {
    /// What to call the object in an error.
    fn address(&self) -> String;

    /// Asks for the bytes from `from` to the end.
    fn open(&self, from: u64) -> impl Future<Output = Result<Answer, Failed>> + Send;
}

/// The whole object, of at most `limit` bytes.
pub(super) async fn whole(
    object: &impl Ranged,
    limit: u64,
    patience: Patience,
    retries: &AtomicU64,
) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    let mut idle = 0;
    loop {
        let before = body.len();
        let cause = match object.open(before as u64).await {
            Ok(answer) => match receive(answer, limit, patience.silence, &mut body).await {
                Ok(()) => return Ok(body.freeze()),
                Err(cause) => cause,
            },
            Err(Failed::Broken(cause)) => cause,
            Err(Failed::NoSuchRange) => {
                body.clear();
                "the server answers ranges wrongly".into()
            }
            Err(Failed::Final(error)) => return Err(error),
        };
        idle = if body.len() >= before + PROGRESS_BYTES { 0 } else { idle + 1 };
        if idle >= patience.tries {
            return Err(FetchError::Unreachable { url: object.address(), tries: idle, cause });
        }
        tracing::debug!(url = object.address(), cause, have = body.len(), "asking again");
        retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep((patience.pause)(idle)).await;
    }
}

/// Appends what comes; `Err` says why it is not all.
async fn receive(mut answer: Answer, limit: u64, silence: Duration, body: &mut BytesMut) -> Result<(), String> {
    if answer.from != body.len() as u64 {
        // The server ignores ranges, or sends others than asked for: what is there is dropped.
        body.clear();
        if answer.from != 0 {
            return Err("the server answers ranges wrongly".into());
        }
    }
    let whole = answer.length.map(|rest| answer.from + rest);
    body.reserve(usize::try_from(answer.length.unwrap_or_default().min(limit)).unwrap_or_default());
    let mut pace = Pace::new(silence);
    loop {
        match pace.next(answer.body.next()).await? {
            None if whole.is_some_and(|whole| (body.len() as u64) < whole) => return Err("the answer ended early".into()),
            None => return Ok(()),
            // Whatever broke then, it was after the last byte.
            Some(Err(_)) if whole == Some(body.len() as u64) => return Ok(()),
            Some(Err(cause)) => return Err(cause),
            // One byte more than allowed is enough for the caller to see that it is too long.
            Some(Ok(part)) if (body.len() + part.len()) as u64 > limit => {
                let room = usize::try_from(limit + 1).unwrap_or(usize::MAX) - body.len();
                body.extend_from_slice(&part[..part.len().min(room)]);
                return Ok(());
            }
            Some(Ok(part)) => {
                body.extend_from_slice(&part);
                pace.came(part.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::stream;

    use super::*;

    const OBJECT: usize = 20 << 10;

    /// Gives `pieces` of so many bytes, each after a pause, and breaks; and notes where it was asked to begin.
    struct Server {
        piece: usize,
        every: Duration,
        pieces: usize,
        asked: Mutex<Vec<u64>>,
    }

    impl Server {
        fn new(piece: usize, every: u64, pieces: usize) -> Self {
            Self { piece, every: Duration::from_millis(every), pieces, asked: Mutex::default() }
        }

        async fn fetched(&self, silence: u64) -> Result<Bytes, FetchError> {
            let patience = Patience { tries: 3, silence: Duration::from_millis(silence), pause: |_| Duration::ZERO };
            whole(self, OBJECT as u64, patience, &AtomicU64::new(0)).await
        }
    }

    impl Ranged for Server {
        fn address(&self) -> String {
            "x".into()
        }

        async fn open(&self, from: u64) -> Result<Answer, Failed> {
            self.asked.lock().unwrap().push(from);
            let (every, piece) = (self.every, self.piece);
            let rest = OBJECT - usize::try_from(from).unwrap();
            let lengths = (0..rest.div_ceil(piece)).map(move |n| piece.min(rest - n * piece));
            let body = stream::iter(lengths).then(move |length| async move {
                tokio::time::sleep(every).await;
                Ok(Bytes::from(vec![7; length]))
            });
            let cut = stream::iter([Err("cut".to_owned())]);
            let length = Some(rest as u64);
            Ok(Answer { from, length, body: body.take(self.pieces).chain(cut).boxed() })
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        assert_eq!(pause(1), Duration::from_millis(100));
        assert_eq!(pause(40), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_server_that_drips_is_given_up() {
        let dripping = Server::new(1, 2, OBJECT);
        let error = dripping.fetched(40).await.unwrap_err();
        assert!(error.is_unreachable() && error.to_string().contains("bytes came within"), "{error}");
        assert_eq!(dripping.asked.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_server_that_is_slow_for_longer_than_a_silence_is_waited_for() {
        let slow = Server::new(PROGRESS_BYTES, 20, OBJECT);
        assert_eq!(slow.fetched(300).await.unwrap().len(), OBJECT);
        assert_eq!(*slow.asked.lock().unwrap(), [0], "it was asked twice");
    }

    #[tokio::test]
    async fn what_breaks_is_gone_on_with_however_often() {
        let cut = Server::new(PROGRESS_BYTES, 0, 2);
        assert_eq!(cut.fetched(1_000).await.unwrap(), vec![7; OBJECT]);
        let starts: Vec<u64> = (0..OBJECT as u64).step_by(2 * PROGRESS_BYTES).collect();
        assert_eq!(*cut.asked.lock().unwrap(), starts);
    }
}
