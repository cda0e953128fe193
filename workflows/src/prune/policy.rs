//! Which snapshots stay: the newest of each of so many days, weeks and months, what is pinned, and what `latest` names.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, Utc};

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Days (UTC), each with its newest snapshot.
    pub daily: usize,
    /// Weeks (ISO 8601).
    pub weekly: usize,
    /// Months.
    pub monthly: usize,
}

/// A snapshot, as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) created_at: DateTime<Utc>,
    /// Pinned, named by `latest`, or disproved not long ago.
    pub(super) held: bool,
    /// Taken back or disproved: it does not stand for its day.
    pub(super) retracted: bool,
}

/// Ids of those that stay. Days, weeks and months without a snapshot do not count.
pub(super) fn kept(snapshots: &[Candidate], keep: Keep) -> HashSet<String> {
    let mut newest: Vec<&Candidate> = snapshots.iter().filter(|snapshot| !snapshot.retracted).collect();
    newest.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.created_at));
    let mut kept: HashSet<String> =
        snapshots.iter().filter(|snapshot| snapshot.held).map(|snapshot| snapshot.id.clone()).collect();
    let day = |at: DateTime<Utc>| (at.year(), at.ordinal());
    let week = |at: DateTime<Utc>| (at.iso_week().year(), at.iso_week().week());
    let month = |at: DateTime<Utc>| (at.year(), at.month());
    kept.extend(first_of_each(&newest, keep.daily, day));
    kept.extend(first_of_each(&newest, keep.weekly, week));
    kept.extend(first_of_each(&newest, keep.monthly, month));
    kept
}

fn first_of_each(newest: &[&Candidate], count: usize, period: impl Fn(DateTime<Utc>) -> (i32, u32)) -> Vec<String> {
    let mut seen = Vec::new();
    let mut first = Vec::new();
    for snapshot in newest {
        let period = period(snapshot.created_at);
        if !seen.contains(&period) {
            seen.push(period);
            first.push(snapshot.id.clone());
        }
    }
    first.truncate(count);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { daily: 7, weekly: 4, monthly: 6 };

    fn candidate(id: &str, at: &str) -> Candidate {
        let created_at = format!("{at}T02:00:00Z").parse().unwrap();
        Candidate { id: id.into(), created_at, held: false, retracted: false }
    }

    /// A snapshot a day, newest first.
    fn days(count: u32) -> Vec<Candidate> {
        let last: DateTime<Utc> = "2026-06-30T02:00:00Z".parse().unwrap();
        let day = |n| last - chrono::TimeDelta::days(i64::from(n));
        (0..count).map(|n| candidate(&day(n).date_naive().to_string(), &day(n).date_naive().to_string())).collect()
    }

    #[test]
    fn a_year_of_nights_leaves_days_weeks_and_months() {
        let mut kept: Vec<String> = kept(&days(365), KEEP).into_iter().collect();
        kept.sort();
        let expected = [
            "2026-01-31",
            "2026-02-28",
            "2026-03-31",
            "2026-04-30",
            "2026-05-31", // months; June's is the newest
            "2026-06-14",
            "2026-06-21",
            "2026-06-28", // Sundays end weeks
            "2026-06-24",
            "2026-06-25",
            "2026-06-26",
            "2026-06-27",
            "2026-06-29",
            "2026-06-30",
        ];
        let mut expected = expected.map(str::to_owned);
        expected.sort();
        assert_eq!(kept, expected);
    }

    #[test]
    fn gaps_do_not_use_up_days_and_the_newest_of_a_day_stands_for_it() {
        let mut two = vec![candidate("old", "2020-01-01"), candidate("new", "2026-06-30")];
        two.push(Candidate { created_at: "2026-06-30T09:00:00Z".parse().unwrap(), ..candidate("new.2", "2026-06-30") });
        let kept = kept(&two, KEEP);
        assert_eq!(kept, HashSet::from(["old".to_owned(), "new.2".to_owned()]));
    }

    #[test]
    fn what_is_held_stays_and_what_was_taken_back_stands_for_nothing() {
        let mut all = days(400);
        all[399].held = true;
        all[0].retracted = true;
        let kept = kept(&all, KEEP);
        assert!(kept.contains(&all[399].id) && !kept.contains(&all[0].id) && kept.contains(&all[7].id));
    }
}
