//! What runs by itself: the schedules that every service comes with.
//! Invariant: a name stays for ever, since operators' changes to a schedule hang on it.

use engine::ScheduleDefault;
use serde_json::{Value, json};

use crate::{full_profile, prune, reseal, restore_drill, scrub, snapshot, status};

/// The schedule of drills, which a service whose drills are off has no use for.
pub const NIGHTLY_DRILL: &str = "nightly-drill";

/// The schedule that only a service with recipients for the `full` profile has.
pub const FULL_PROFILE: &str = "nightly-full-profile";

/// One line a schedule: its name, its workflow, what its runs are asked for, and when it fires (crontab(5), UTC).
fn lines() -> [(&'static str, &'static str, Value, &'static str); 8] {
    [
        ("nightly-snapshot", snapshot::NAME, json!({}), "0 2 * * *"),
        (FULL_PROFILE, full_profile::NAME, json!({}), "30 2 * * *"),
        ("nightly-scrub", scrub::NAME, json!({ "percent": 2 }), "0 4 * * 1-6"),
        ("weekly-scrub", scrub::NAME, json!({ "percent": 100 }), "0 4 * * 0"),
        ("daily-prune", prune::NAME, json!({}), "0 5 * * *"),
        (NIGHTLY_DRILL, restore_drill::NAME, json!({}), "0 7 * * *"),
        ("status", status::NAME, json!({}), "25 * * * *"),
        ("weekly-reseal", reseal::NAME, json!({}), "0 6 * * 0"),
    ]
}

/// The schedules of every service. Each leaves a tick out while its last run is unfinished, and catches up the last
/// tick that it missed.
pub fn defaults() -> Vec<ScheduleDefault> {
    lines().into_iter().map(|(name, workflow, params, cron)| ScheduleDefault::new(name, workflow, cron, params)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_names_a_workflow_and_has_a_name_of_its_own() {
        let known: Vec<&str> = crate::all().iter().map(|registered| registered.name).collect();
        let mut names: Vec<String> = Vec::new();
        for default in defaults() {
            assert!(known.contains(&default.workflow.as_str()), "{default:?}");
            assert!(engine::Cron::parse(&default.cron, &default.timezone).is_ok(), "{default:?}");
            assert!(!names.contains(&default.name), "{default:?}");
            names.push(default.name);
        }
    }
}
