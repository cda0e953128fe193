//! What runs by itself: the schedules that every service comes with.
//! Invariant: a name stays for ever, since operators' changes to a schedule hang on it.

use engine::ScheduleDefault;
use serde_json::json;

use crate::snapshot;

/// One line a schedule: its name, its workflow, and when it fires (crontab(5), UTC).
const DEFAULTS: [(&str, &str, &str); 1] = [("nightly-snapshot", snapshot::NAME, "0 2 * * *")];

/// The schedules of every service. Each leaves a tick out while its last run is unfinished, and catches up the last
/// tick that it missed.
pub fn defaults() -> Vec<ScheduleDefault> {
    let schedule = |(name, workflow, cron): (&str, _, _)| ScheduleDefault::new(name, workflow, cron, json!({}));
    DEFAULTS.into_iter().map(schedule).collect()
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
