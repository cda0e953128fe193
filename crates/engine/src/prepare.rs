//! From a schedule's parameters to a run, by whoever knows what they mean: the engine asks before it starts a run of its
//! own accord, as an API asks before it starts one for a person.
//! Invariant: nothing of the ledger is locked while it is asked, and it is not waited for longer than ten seconds.
use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde_json::Value;

use crate::{catalog::Catalog, error::BoxError, schedule::Schedule, start::StartRun};

/// How long preparing a run may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why no run can be made of parameters.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// They are wrong, and will be tomorrow.
    #[error(transparent)]
    Refused(BoxError),
    /// What must be asked does not answer; it may soon.
    #[error(transparent)]
    Unavailable(BoxError),
}

/// Makes the run of a workflow (by name) with some parameters: completes them, sets its unique key.
#[derive(Clone)]
pub struct Prepare(Arc<Function>);

type Function = dyn Fn(String, Value) -> BoxFuture<'static, Result<StartRun, PrepareError>> + Send + Sync;

impl Prepare {
    /// Wraps a function of workflow and parameters.
    pub fn new(
        prepare: impl Fn(String, Value) -> BoxFuture<'static, Result<StartRun, PrepareError>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(prepare))
    }
}

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepare")
    }
}

impl Catalog {
    /// The run that the schedule wants; what its row says beyond parameters goes before what was prepared.
    pub(crate) async fn request_of(&self, schedule: &Schedule) -> Result<StartRun, PrepareError> {
        let mut request = self.prepare(&schedule.workflow, schedule.params.clone()).await?;
        if schedule.unique_key.is_some() {
            request.unique_key.clone_from(&schedule.unique_key);
        }
        request.priority = schedule.priority;
        Ok(request)
    }

    /// A run of the workflow; without a function to ask, of the parameters as they are.
    pub(crate) async fn prepare(&self, workflow: &str, params: Value) -> Result<StartRun, PrepareError> {
        let Some(Prepare(prepare)) = &self.prepare else { return Ok(StartRun::new(workflow, params)) };
        let late = |_| PrepareError::Unavailable("its parameters could not be checked within ten seconds".into());
        tokio::time::timeout(PATIENCE, prepare(workflow.to_owned(), params)).await.map_err(late)?
    }
}
