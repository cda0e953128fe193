//! Which snapshots stay: one of each of so many days, weeks and months, what is pinned, and what `latest` names. A day is stood for by
//! its newest; a week and a month by the newest whose archive is stored, since the others' exist only while the service answers.
//! Invariant: what was never promoted stands for nothing, however many nights in a row nobody could prove what was cut. It stays while
//! nothing newer was promoted, since an operator may still prove and publish it.

use std::collections::{BTreeMap, HashSet};

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
    /// `latest` once pointed at it.
    pub(super) promoted: bool,
    /// Its archive is in the bucket.
    pub(super) stored: bool,
}

/// Ids of those that stay. Days, weeks and months without a snapshot do not count.
pub(super) fn kept(snapshots: &[Candidate], keep: Keep) -> HashSet<String> {
    let mut newest: Vec<&Candidate> = snapshots.iter().filter(|snapshot| !snapshot.retracted).collect();
    newest.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.created_at));
    let mut kept: HashSet<String> =
        snapshots.iter().filter(|snapshot| snapshot.held).map(|snapshot| snapshot.id.clone()).collect();
    let unpromoted = newest.iter().take_while(|snapshot| !snapshot.promoted);
    kept.extend(unpromoted.map(|snapshot| snapshot.id.clone()));
    newest.retain(|snapshot| snapshot.promoted);
    let day = |at: DateTime<Utc>| (at.year(), at.ordinal());
    let week = |at: DateTime<Utc>| (at.iso_week().year(), at.iso_week().week());
    let month = |at: DateTime<Utc>| (at.year(), at.month());
    kept.extend(first_of_each(&newest, keep.daily, day));
    // The order of equals stays.
    newest.sort_by_key(|snapshot| !snapshot.stored);
    kept.extend(first_of_each(&newest, keep.weekly, week));
    kept.extend(first_of_each(&newest, keep.monthly, month));
    kept
}

/// The first of each of the newest `count` periods.
fn first_of_each(ordered: &[&Candidate], count: usize, period: impl Fn(DateTime<Utc>) -> (i32, u32)) -> Vec<String> {
    let mut first: BTreeMap<(i32, u32), &Candidate> = BTreeMap::new();
    for snapshot in ordered {
        first.entry(period(snapshot.created_at)).or_insert(snapshot);
    }
    first.into_values().rev().take(count).map(|snapshot| snapshot.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { daily: 7, weekly: 4, monthly: 6 };

    fn candidate(id: &str, at: &str) -> Candidate {
        let created_at = format!("{at}T02:00:00Z").parse().unwrap();
        Candidate { id: id.into(), created_at, held: false, retracted: false, promoted: true, stored: true }
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
    fn of_a_week_and_a_month_one_with_a_stored_archive_stays() {
        let mut all = days(60);
        // As `--archive weekly` stores them: that of each Monday.
        for one in &mut all {
            one.stored = one.created_at.weekday() == chrono::Weekday::Mon;
        }
        let kept = kept(&all, Keep { daily: 2, weekly: 2, monthly: 2 });
        let expected = ["2026-06-30", "2026-06-29", "2026-06-22", "2026-05-25"];
        assert_eq!(kept, expected.map(str::to_owned).into());
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

    #[test]
    fn what_was_never_promoted_takes_no_place_and_stays_while_nothing_newer_was_promoted() {
        let mut all = days(12);
        // Ten nights in a row nobody could prove what was cut, but for one in the middle.
        for one in all[..10].iter_mut() {
            one.promoted = false;
        }
        all[4].promoted = true;
        let kept = kept(&all, Keep { daily: 3, weekly: 0, monthly: 0 });
        let expected = [0, 1, 2, 3, 4, 10, 11].map(|n: usize| all[n].id.clone());
        assert_eq!(kept, expected.into());
    }
}
