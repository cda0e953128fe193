//! How long a step waits before its next attempt. Only the settings: `snapshots.backoff_ms` (`sql/consequences.sql`) is the
//! formula, since the time of the next attempt is stored where the attempt ends.
use std::time::Duration;

/// Exponential backoff with jitter: `base · 2^(attempt − 1)`, at most `cap`, then spread over 75 % to 125 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failed attempt, before jitter.
    pub base: Duration,
    /// Longest wait, before jitter.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(2), cap: Duration::from_secs(300) }
    }
}
