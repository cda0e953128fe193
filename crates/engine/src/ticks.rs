//! When a schedule fires. The expression is evaluated on the wall clock of its time zone, and each wall-clock time is
//! then placed on the time line: one that is skipped when clocks go forward fires once, when they have; one that comes
//! twice when clocks go back fires the first time only.
//! Pure: the time is an argument. Invariant: ticks are strictly ascending, and the same whoever asks.
use std::str::FromStr;

use chrono::{DateTime, Duration, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;

use crate::crontab::{CronError, translate};

/// Longer than any wall clock was ever set back.
const SET_BACK: Duration = Duration::hours(3);

/// A crontab expression in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    schedule: cron::Schedule,
    timezone: Tz,
}

impl Cron {
    /// Reads a five-field crontab expression and the IANA name of a time zone.
    ///
    /// # Errors
    /// See [`CronError`].
    pub fn parse(expression: &str, timezone: &str) -> Result<Self, CronError> {
        let translated = translate(expression)?;
        let timezone = Tz::from_str(timezone).map_err(|_| CronError::UnknownTimezone { name: timezone.to_owned() })?;
        let never = || CronError::Never { expression: expression.to_owned() };
        let schedule = cron::Schedule::from_str(&translated).map_err(|_| never())?;
        // The crate looks as far as the year 2100.
        schedule.after(&DateTime::UNIX_EPOCH).next().ok_or_else(never)?;
        Ok(Self { schedule, timezone })
    }

    /// The first tick after `time`.
    #[must_use]
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wall = time.with_timezone(&self.timezone).naive_local();
        self.schedule.after(&wall.and_utc()).map(|tick| self.place(tick.naive_utc())).find(|tick| *tick > time)
    }

    /// The last tick at or before `time`.
    #[must_use]
    pub fn latest_at(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wall = time.with_timezone(&self.timezone).naive_local() + SET_BACK;
        self.schedule.after(&wall.and_utc()).rev().map(|tick| self.place(tick.naive_utc())).find(|tick| *tick <= time)
    }

    /// The first `count` ticks after `time`.
    #[must_use]
    pub fn next_fires(&self, time: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next_after(time), |tick| self.next_after(*tick)).take(count).collect()
    }

    fn place(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        let mut wall = wall;
        loop {
            if let Some(tick) = self.timezone.from_local_datetime(&wall).earliest() {
                return tick.with_timezone(&Utc);
            }
            wall += Duration::minutes(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn fires(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let ticks = Cron::parse(cron, zone).unwrap().next_fires(time(after), count);
        ticks.iter().map(|tick| tick.format("%m-%dT%H:%M").to_string()).collect()
    }

    #[test]
    fn nightly_in_utc_is_every_day_and_weekly_is_on_sunday() {
        assert_eq!(fires("0 2 * * *", "UTC", "2026-11-22T02:00:00Z", 2), ["11-23T02:00", "11-24T02:00"]);
        assert_eq!(fires("0 2 * * *", "UTC", "2026-11-22T01:59:59.5Z", 1), ["11-22T02:00"]);
        assert_eq!(fires("30 3 * * 0", "UTC", "2026-11-22T21:00:00Z", 2), ["11-29T03:30", "12-06T03:30"]);
    }

    #[test]
    fn a_tick_that_the_clock_skips_fires_once_when_the_clock_has_moved() {
        // Zurich: 29 March 2026, 02:00 becomes 03:00 at 01:00 UTC. New York: 8 March, 02:00 becomes 03:00 at 07:00 UTC.
        let zurich = fires("30 2 * * *", "Europe/Zurich", "2026-03-28T00:00:00Z", 3);
        assert_eq!(zurich, ["03-28T01:30", "03-29T01:00", "03-30T00:30"]);
        let new_york = fires("30 2 * * *", "America/New_York", "2026-03-07T00:00:00Z", 3);
        assert_eq!(new_york, ["03-07T07:30", "03-08T07:00", "03-09T06:30"]);
        let often = fires("*/20 * * * *", "Europe/Zurich", "2026-03-29T00:30:00Z", 3);
        assert_eq!(often, ["03-29T00:40", "03-29T01:00", "03-29T01:20"]);
    }

    #[test]
    fn a_tick_whose_wall_clock_time_comes_twice_fires_once() {
        // Zurich: 25 October 2026, 03:00 becomes 02:00 at 01:00 UTC. New York: 1 November, 02:00 becomes 01:00 at 06:00.
        let zurich = fires("30 2 * * *", "Europe/Zurich", "2026-10-24T00:00:00Z", 3);
        assert_eq!(zurich, ["10-24T00:30", "10-25T00:30", "10-26T01:30"]);
        let new_york = fires("30 1 * * *", "America/New_York", "2026-10-31T00:00:00Z", 3);
        assert_eq!(new_york, ["10-31T05:30", "11-01T05:30", "11-02T06:30"]);
        let between = fires("30 2 * * *", "Europe/Zurich", "2026-10-25T01:10:00Z", 1);
        assert_eq!(between, ["10-26T01:30"], "asked during the second 02:10");
    }

    #[test]
    fn looking_back_finds_the_tick_that_looking_forward_fired() {
        for (cron, zone) in [("*/7 * * * *", "Europe/Zurich"), ("30 2 * * *", "America/New_York"), ("0 1 1 */3 *", "UTC")] {
            let cron = Cron::parse(cron, zone).unwrap();
            for begin in ["2026-03-08T05:00:00Z", "2026-03-28T23:00:00Z", "2026-10-24T23:00:00Z", "2026-11-01T04:00:00Z"] {
                for tick in cron.next_fires(time(begin), 60) {
                    assert_eq!(cron.latest_at(tick), Some(tick));
                    let next = cron.next_after(tick).unwrap();
                    assert!(next > tick);
                    assert_eq!(cron.latest_at(next - Duration::seconds(1)), Some(tick));
                }
            }
        }
    }

    #[test]
    fn dates_and_time_zones_that_do_not_exist_are_refused() {
        let refusal = |cron, zone| Cron::parse(cron, zone).unwrap_err().to_string();
        assert_eq!(refusal("0 2 30 2 *", "UTC"), "`0 2 30 2 *` never fires: there is no such date");
        assert!(refusal("0 2 * * *", "Mars/Olympus").starts_with("there is no time zone `Mars/Olympus`"));
    }
}
