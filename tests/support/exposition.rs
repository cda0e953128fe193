//! Reads what `/metrics` answers, and refuses what Prometheus' text format 0.0.4 or its naming rules do not allow.
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use super::service::ServiceProcess;

/// Words that stand for a unit and are not base units (prometheus.io/docs/practices/naming).
const NO_UNITS: [&str; 10] = ["ms", "millis", "milliseconds", "us", "minutes", "hours", "days", "kb", "mb", "percent"];

/// One metric.
#[derive(Debug, Default)]
pub(crate) struct Family {
    kind: String,
    help: String,
    /// Labels as they were written, and values.
    pub(crate) samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// All metrics of one answer.
#[derive(Debug, Default)]
pub(crate) struct Exposition(pub(crate) BTreeMap<String, Family>);

impl Exposition {
    /// Asks a service, and checks everything that it says.
    pub(crate) async fn of(service: &ServiceProcess) -> Self {
        let answer = service.get("/metrics").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.text().await.unwrap();
        let parsed = Self::parse(&text);
        parsed.check();
        promtool(&text);
        parsed
    }

    fn parse(text: &str) -> Self {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(said) = line.strip_prefix("# HELP ") {
                let (name, help) = said.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                let family = families.entry(name.to_owned()).or_default();
                assert!(family.help.is_empty() && family.samples.is_empty(), "help twice, or late: {line}");
                help.clone_into(&mut family.help);
            } else if let Some(said) = line.strip_prefix("# TYPE ") {
                let (name, kind) = said.split_once(' ').unwrap();
                let family = families.entry(name.to_owned()).or_default();
                assert!(family.kind.is_empty() && family.samples.is_empty(), "type twice, or late: {line}");
                kind.clone_into(&mut family.kind);
                name.clone_into(&mut current);
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                let (name, labels) = labels(series);
                assert!(name.starts_with(&current) && !current.is_empty(), "{line} stands under {current}");
                let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
                families.get_mut(&current).unwrap().samples.push((name, labels, value));
            }
        }
        Self(families)
    }

    /// What `promtool check metrics` would say, and that a series is there once.
    fn check(&self) {
        for (name, family) in &self.0 {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(good), "{name}");
            assert!(family.help.len() > 10, "{name} says nothing of itself");
            assert!(!family.samples.is_empty(), "{name} has no samples");
            assert!(matches!(family.kind.as_str(), "counter" | "gauge" | "histogram"), "{name} is a {}", family.kind);
            assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
            assert!(!name.split('_').any(|word| NO_UNITS.contains(&word)), "{name} has no base unit");
            for end in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(end), "{name} ends as a histogram's series do");
            }
            family.check(name);
        }
    }

    /// The value of the one series of this name that has these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value))
        };
        let samples = self.0.values().flat_map(|family| &family.samples);
        let mut found = samples.filter(|(series, labels, _)| series == name && wanted(labels));
        let value = found.next().map(|(_, _, value)| *value);
        assert!(found.next().is_none(), "several series of {name} have {labels:?}");
        value
    }

    /// Values a label has, over all metrics.
    pub(crate) fn values_of(&self, label: &str) -> Vec<&str> {
        let samples = self.0.values().flat_map(|family| &family.samples);
        let mut values: Vec<&str> = samples.filter_map(|(_, labels, _)| labels.get(label).map(String::as_str)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

impl Family {
    fn check(&self, name: &str) {
        let mut seen = std::collections::BTreeSet::new();
        for (series, labels, value) in &self.samples {
            assert!(seen.insert((series, labels)), "{series} {labels:?} is there twice");
            assert!(value.is_finite() && *value >= 0.0, "{series} {labels:?} is {value}");
            if self.kind == "histogram" {
                let end = series.strip_prefix(name).unwrap();
                assert!(["_bucket", "_sum", "_count"].contains(&end), "{series}");
                assert_eq!(end == "_bucket", labels.contains_key("le"), "{series}");
            } else {
                assert_eq!(series, name);
                assert!(!labels.contains_key("le") && !labels.contains_key("quantile"), "{series} {labels:?}");
            }
        }
        self.check_buckets(name);
    }

    /// Buckets only grow, and the last is the count.
    fn check_buckets(&self, name: &str) {
        let mut histograms: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, labels, value) in self.samples.iter().filter(|(series, ..)| *series == format!("{name}_bucket")) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap().parse().unwrap_or_else(|_| panic!("{series}"));
            histograms.entry(labels).or_default().push((bound, *value));
        }
        assert_eq!(self.kind == "histogram", !histograms.is_empty(), "{name}");
        for (labels, buckets) in histograms {
            assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name} {labels:?}");
            let (bound, all) = *buckets.last().unwrap();
            assert!(bound.is_infinite(), "{name} {labels:?} has no +Inf");
            let of = |wanted: &str| {
                let wanted = format!("{name}_{wanted}");
                self.samples.iter().find(|(series, found, _)| *series == wanted && *found == labels).map(|(_, _, value)| *value)
            };
            assert_eq!(of("count"), Some(all), "{name} {labels:?}");
            assert!(of("sum").is_some(), "{name} {labels:?}");
        }
    }
}

fn labels(series: &str) -> (String, BTreeMap<String, String>) {
    let Some((name, rest)) = series.split_once('{') else { return (series.to_owned(), BTreeMap::new()) };
    let inside = rest.strip_suffix('}').unwrap_or_else(|| panic!("{series}"));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{series}"));
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{series}");
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    };
    (name.to_owned(), inside.split("\",").map(pair).collect())
}

/// Prometheus' own tool has the last word where it is installed.
fn promtool(text: &str) {
    let Ok(mut tool) = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
    else {
        return;
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = tool.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
