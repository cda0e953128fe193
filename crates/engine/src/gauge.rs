//! How far an attempt is and how fast it goes, from what the step reports. Pure but for the clock that callers bring.
//! Invariant: the rate speaks of the last [`WINDOW`] only, so an attempt that goes on after a crash, or hangs, says so.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::model::Progress;

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(30);
/// Samples closer than this add nothing.
const APART: Duration = Duration::from_millis(250);

/// The progress of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    latest: Option<Progress>,
    samples: VecDeque<(Instant, u64)>,
}

impl Gauge {
    /// Takes the step's word.
    pub(crate) fn set(&mut self, done: u64, total: u64, unit: &'static str, now: Instant) {
        let other = self.latest.as_ref().is_some_and(|latest| latest.unit != unit || latest.done > done);
        if other {
            self.samples.clear();
        }
        self.latest = Some(Progress { done, total, unit: unit.to_owned(), rate: None });
        self.sample(now);
    }

    /// The latest word, with the rate as of `now`.
    pub(crate) fn read(&mut self, now: Instant) -> Option<Progress> {
        self.sample(now);
        let latest = self.latest.clone()?;
        let (since, before) = *self.samples.front()?;
        let elapsed = now.saturating_duration_since(since);
        let rate = (elapsed >= APART).then(|| (latest.done - before) as f64 / elapsed.as_secs_f64());
        Some(Progress { rate, ..latest })
    }

    fn sample(&mut self, now: Instant) {
        let Some(latest) = &self.latest else { return };
        if self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= APART) {
            self.samples.push_back((now, latest.done));
        }
        // The youngest sample beyond the window stays: the rate is measured from it.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(gauge: &mut Gauge, at: Instant) -> Option<f64> {
        gauge.read(at).and_then(|progress| progress.rate)
    }

    #[test]
    fn the_rate_is_of_what_was_done_since_the_first_report_not_since_zero() {
        let (mut gauge, start) = (Gauge::default(), Instant::now());
        gauge.set(1_000_000, 2_000_000, "bytes", start);
        assert_eq!(rate(&mut gauge, start), None, "one report makes no rate");
        gauge.set(1_000_100, 2_000_000, "bytes", start + Duration::from_secs(10));
        assert_eq!(rate(&mut gauge, start + Duration::from_secs(10)), Some(10.0));
    }

    #[test]
    fn a_step_that_hangs_slows_to_nothing() {
        let (mut gauge, start) = (Gauge::default(), Instant::now());
        gauge.set(0, 100, "rows", start);
        gauge.set(100, 100, "rows", start + Duration::from_secs(1));
        let rates: Vec<_> = (2..80).map(|s| rate(&mut gauge, start + Duration::from_secs(s)).unwrap_or_default()).collect();
        assert!(rates.windows(2).all(|pair| pair[1] <= pair[0]), "{rates:?}");
        assert_eq!(rates.last(), Some(&0.0));
    }

    #[test]
    fn another_unit_or_a_step_back_begins_anew() {
        let (mut gauge, start) = (Gauge::default(), Instant::now());
        gauge.set(500, 1000, "rows", start);
        gauge.set(10, 1000, "rows", start + Duration::from_secs(1));
        assert_eq!(rate(&mut gauge, start + Duration::from_secs(3)), Some(0.0));
        gauge.set(20, 1000, "bytes", start + Duration::from_secs(4));
        assert_eq!(rate(&mut gauge, start + Duration::from_secs(4)), None);
    }
}
