//! From a request to the parameters of a run, so that what cannot work is refused before a run exists.

use engine::{Prepare, PrepareError, StartRun};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use snapshot::store::StoreError;

use crate::services::Services;

/// A request that no run can be made of.
#[derive(Debug, thiserror::Error)]
pub enum BadParams {
    /// No such workflow.
    #[error("there is no workflow `{name}`; known are: {known}")]
    UnknownWorkflow {
        /// What was asked for.
        name: String,
        /// The names there are, comma-separated.
        known: String,
    },
    /// The parameters do not fit.
    #[error("the parameters of workflow `{workflow}` are wrong: {problem}")]
    Params {
        /// The workflow.
        workflow: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing yet that the workflow could work on.
    #[error("workflow `{workflow}` has nothing to work on: {problem}")]
    Nothing {
        /// The workflow.
        workflow: &'static str,
        /// What is missing.
        problem: String,
    },
    /// Everything would stay as it is.
    #[error("workflow `{workflow}` would change nothing: {problem}")]
    Idle {
        /// The workflow.
        workflow: &'static str,
        /// How things are, and what would change them.
        problem: String,
    },
    /// The bucket cannot be asked.
    #[error("the bucket does not answer")]
    Bucket(#[from] StoreError),
    /// The indexed database cannot be asked.
    #[error("the indexed database does not answer")]
    Database(#[from] sqlx::Error),
}

/// Checks and completes the parameters of a run.
pub type Starter = for<'a> fn(&'a Services, Value) -> BoxFuture<'a, Result<StartRun, BadParams>>;

/// Makes a run of a request for the named workflow.
///
/// # Errors
/// [`BadParams`].
pub async fn prepare(services: &Services, name: &str, params: Value) -> Result<StartRun, BadParams> {
    let all = crate::all();
    let Some(found) = all.iter().find(|registered| registered.name == name) else {
        let known = all.iter().map(|registered| registered.name).collect::<Vec<_>>().join(", ");
        return Err(BadParams::UnknownWorkflow { name: name.to_owned(), known });
    };
    // serde would also fill a struct from a list, by position.
    if !(params.is_object() || params.is_null()) {
        let problem = "they must be a JSON object, as {\"network\": \"mainnet\"}".to_owned();
        return Err(BadParams::Params { workflow: found.name, problem });
    }
    let params = if params.is_null() { json!({}) } else { params };
    (found.starter)(services, params).await
}

/// The parameters that a workflow is asked for.
pub(crate) fn read<P: DeserializeOwned>(workflow: &'static str, params: Value) -> Result<P, BadParams> {
    serde_json::from_value(params).map_err(|error| BadParams::Params { workflow, problem: error.to_string() })
}

/// [`prepare`] for the runs that the engine starts by schedule, so that they cannot differ from those that people start.
pub fn preparing(services: Services) -> Prepare {
    Prepare::new(move |name, params| {
        let services = services.clone();
        async move {
            prepare(&services, &name, params).await.map_err(|error| match error {
                BadParams::Database(_) | BadParams::Bucket(_) => PrepareError::Unavailable(error.into()),
                error => PrepareError::Refused(error.into()),
            })
        }
        .boxed()
    })
}
