//! Tells a line that drips from one that is slow.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Progress below this does not count: a server that gives a byte a time is as good as none.
pub const PROGRESS_BYTES: usize = 1 << 10;
/// How long a server may be silent, or drip.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Watches over one answer: in each stretch of time it must bring [`PROGRESS_BYTES`], or its end.
#[derive(Debug)]
pub struct Pace {
    silence: Duration,
    got: usize,
    deadline: Instant,
}

impl Pace {
    /// The first stretch begins now.
    #[must_use]
    pub fn new(silence: Duration) -> Self {
        Self { silence, got: 0, deadline: Instant::now() + silence }
    }

    /// Waits for the next piece.
    ///
    /// # Errors
    /// How little came, where that is too little.
    pub async fn next<T>(&mut self, piece: impl Future<Output = T>) -> Result<T, String> {
        let waited = timeout_at(self.deadline, piece).await;
        waited.map_err(|_| format!("only {} bytes came within {:?}", self.got, self.silence))
    }

    /// Notes what came.
    pub fn came(&mut self, bytes: usize) {
        self.got += bytes;
        if self.got >= PROGRESS_BYTES {
            *self = Self::new(self.silence);
        }
    }
}
