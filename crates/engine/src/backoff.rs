//! How long a step waits before its next attempt. Pure: the caller brings the attempt's number and the dice.
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

impl Backoff {
    /// The wait after attempt number `attempt` (from 1) failed; `dice` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn delay(self, attempt: u32, dice: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let plain = self.base.saturating_mul(1 << doublings).min(self.cap);
        plain.mul_f64(0.75 + dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(60) };

    #[test]
    fn each_wait_doubles_until_the_cap() {
        let waits: Vec<u64> = (1..=7).map(|n| BACKOFF.delay(n, 0.5).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn jitter_spreads_a_quarter_to_both_sides() {
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::from_millis(1500));
        assert_eq!(BACKOFF.delay(1, 1.0), Duration::from_millis(2500));
    }

    #[test]
    fn an_absurd_attempt_number_stays_at_the_cap() {
        assert_eq!(BACKOFF.delay(u32::MAX, 0.5), Duration::from_secs(60));
    }
}
