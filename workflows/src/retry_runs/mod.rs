//! Does again every run that matches a filter: what an operator wants after a bad night, as a run of its own, so that it
//! survives what any run survives and everybody can see how far it is.
//!
//! Invariant: a run is retried once by it, and only if it was asked for before this one was.

mod retry;

use chrono::{DateTime, Utc};
use engine::{Queue, RetryFrom, RunFilter, RunState, StartRun, Workflow};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::services::Services;
use crate::start::{BadParams, read};

/// Name of the workflow in the ledger.
pub const NAME: &str = "retry_runs";

/// What is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Params {
    /// Which runs; at least one of its parts but the states must be given.
    #[serde(default)]
    pub filter: Filter,
    /// Where they begin.
    #[serde(default = "failed_step")]
    pub from: RetryFrom,
}

/// Which runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// This workflow's.
    pub workflow: Option<String>,
    /// In these states; by default those that failed.
    #[serde(default)]
    pub states: Vec<RunState>,
    /// Asked for at or after this.
    pub since: Option<DateTime<Utc>>,
    /// Asked for before this; at the latest when the retry is.
    pub until: Option<DateTime<Utc>>,
    /// With this text in their id, key, error or parameters.
    pub text: Option<String>,
}

impl From<Filter> for RunFilter {
    fn from(filter: Filter) -> Self {
        let Filter { workflow, states, since, until, text } = filter;
        Self { workflow, states, since, until, text, after: None }
    }
}

fn failed_step() -> RetryFrom {
    RetryFrom::FailedStep
}

/// The workflow.
pub fn workflow() -> Workflow<Services> {
    Workflow::named(NAME, 1).step("retry", retry::run).queue(Queue::Control)
}

/// Refuses what cannot be meant, and fixes the end of the time that is looked at: what is retried from the start begins after it,
/// and is not met again.
pub(crate) fn starter(_: &Services, params: Value) -> BoxFuture<'_, Result<StartRun, BadParams>> {
    async move {
        let mut params: Params = read(NAME, params)?;
        check(&params).map_err(wrong)?;
        let now = Utc::now();
        let filter = &mut params.filter;
        filter.until = Some(filter.until.map_or(now, |until| until.min(now)));
        if filter.states.is_empty() {
            filter.states = vec![RunState::Failed];
        }
        let params = serde_json::to_value(params).map_err(|error| wrong(error.to_string()))?;
        Ok(StartRun::new(NAME, params))
    }
    .boxed()
}

fn wrong(problem: String) -> BadParams {
    BadParams::Params { workflow: NAME, problem }
}

fn check(params: &Params) -> Result<(), String> {
    let filter = &params.filter;
    let texts = || [&filter.workflow, &filter.text].into_iter().flatten();
    if texts().next().is_none() && filter.since.is_none() && filter.until.is_none() {
        return Err("say which runs: filter needs workflow, since, until or text".into());
    }
    if texts().any(|text| text.is_empty() || text.contains('\0')) {
        return Err("workflow and text must not be empty".into());
    }
    let known = || crate::all().into_iter().map(|registered| registered.name);
    if let Some(workflow) = &filter.workflow
        && !known().any(|name| name == workflow)
    {
        return Err(format!("there is no workflow `{workflow}`; known are: {}", known().collect::<Vec<_>>().join(", ")));
    }
    if let Some(state) = filter.states.iter().find(|state| !state.is_finished()) {
        return Err(format!("a run that is {state} has not ended: retry failed or cancelled ones"));
    }
    if params.from == RetryFrom::FailedStep && filter.states.contains(&RunState::Succeeded) {
        return Err("a run that succeeded has no failed step: retry it from the start".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(params: Value) -> bool {
        serde_json::from_value::<Params>(params).map_err(|error| error.to_string()).and_then(|params| check(&params)).is_err()
    }

    #[test]
    fn all_runs_of_all_time_are_not_retried_by_mistake() {
        assert!(refused(json!({})) && refused(json!({ "filter": {} })) && refused(json!({ "filter": { "states": ["failed"] } })));
        assert!(!refused(json!({ "filter": { "workflow": "snapshot" } })));
        assert!(!refused(json!({ "filter": { "since": "2026-11-22T00:00:00Z" }, "from": "start" })));
    }

    #[test]
    fn what_cannot_be_retried_is_said_before_a_run_exists() {
        for filter in [
            json!({ "workflow": "nothing" }),
            json!({ "workflow": "snapshot", "states": ["running"] }),
            json!({ "workflow": "snapshot", "states": ["succeeded"] }),
            json!({ "workflow": "snapshot", "state": "failed" }),
            json!({ "text": "" }),
            json!({ "since": "yesterday" }),
        ] {
            assert!(refused(json!({ "filter": filter })), "{filter}");
        }
    }
}
