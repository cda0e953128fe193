//! The alert rules that operators are given: each tells what to do, and speaks of metrics that a service really shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Exposition;

fn operations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/operations")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(operations().join(name)).unwrap()
}

fn alerts(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// Names of metrics in the rules' expressions.
fn metrics(rules: &str) -> BTreeSet<&str> {
    let named = |word: &&str| ["snapshots_", "http_"].iter().any(|prefix| word.starts_with(prefix));
    rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(named).collect()
}

/// Every metric of every rule is there, with the labels that the rules look at.
pub(crate) fn speak_of(shown: &Exposition) {
    let rules = read("alerts.yml");
    let named = metrics(&rules);
    assert!(named.len() >= 13, "{named:?}");
    for name in named {
        assert!(shown.0.contains_key(name), "an alert speaks of {name}, which is not there");
    }
    for label in ["network", "kind", "queue", "outcome", "state", "pool", "source", "status"] {
        assert!(rules.contains(label) && !shown.values_of(label).is_empty(), "no metric has label {label}");
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let (rules, told, tested) = (read("alerts.yml"), read("alerts.md"), read("alerts_test.yml"));
    let alerts = alerts(&rules);
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in &alerts {
        let url = format!("runbook_url: docs/operations/alerts.md#{}", alert.to_lowercase());
        assert!(rules.contains(&url), "{alert} has no runbook");
        let section = told.split("\n## ").find(|section| section.starts_with(&format!("{alert}\n")));
        assert!(section.is_some_and(|section| section.len() > 100), "{alert} has no section that says what to do");
        assert!(tested.contains(&format!("alertname: {alert} ")), "{alert} is not tested");
    }
    let sections = told.matches("\n## ").count();
    assert_eq!((sections, rules.matches("severity: ").count()), (alerts.len(), alerts.len()));
    assert!(tested.contains(&format!("value: {}", alerts.len())), "the test does not wait for all alerts");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        // Where Prometheus' own tool is not installed, what is above must do.
        let Ok(ended) = Command::new("promtool").args(arguments).current_dir(operations()).output() else { return };
        assert!(ended.status.success(), "{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    }
}
