//! What runs do: one folder per workflow, one file per step, and the list of all.
//!
//! How a run survives is the engine's business; what a snapshot is made of is the snapshot crate's. A workflow never
//! imports another workflow.

pub mod catalog;
pub mod decisions;
pub mod dirty;
pub mod drill;
pub mod figures;
pub mod full_catalog;
pub mod full_profile;
mod newest;
pub mod notify;
mod pointer;
pub mod prune;
pub mod publication;
pub mod reseal;
pub mod resealed;
pub mod restore_drill;
mod restoring;
pub mod retry_runs;
pub mod schedules;
pub mod scratch;
pub mod scrub;
pub mod services;
mod signing;
pub mod snapshot;
pub mod staging_refresh;
mod start;
pub mod status;
mod step_error;

use engine::{Catalog, Client, Workflow, WorkflowError};
use services::Services;
use sqlx::PgPool;

pub use start::{BadParams, Starter, prepare, preparing};

/// A workflow and how a request for a run of it is understood.
pub struct Registered {
    /// Its steps.
    pub workflow: Workflow<Services>,
    /// Its name in the ledger, in URLs and on the command line.
    pub name: &'static str,
    /// Checks the parameters of a request and completes them.
    pub starter: Starter,
}

/// Every workflow of the service. Command line, API and schedules find a workflow by being listed here.
pub fn all() -> Vec<Registered> {
    vec![
        Registered { workflow: snapshot::workflow(), name: snapshot::NAME, starter: snapshot::starter },
        Registered { workflow: full_profile::workflow(), name: full_profile::NAME, starter: full_profile::starter },
        Registered { workflow: scrub::workflow(), name: scrub::NAME, starter: scrub::starter },
        Registered { workflow: reseal::workflow(), name: reseal::NAME, starter: reseal::starter },
        Registered { workflow: retry_runs::workflow(), name: retry_runs::NAME, starter: retry_runs::starter },
        Registered { workflow: restore_drill::workflow(), name: restore_drill::NAME, starter: restore_drill::starter },
        Registered { workflow: staging_refresh::workflow(), name: staging_refresh::NAME, starter: staging_refresh::starter },
        Registered { workflow: prune::workflow(), name: prune::NAME, starter: prune::starter },
        Registered { workflow: publication::retract(), name: publication::RETRACT, starter: publication::start_retract },
        Registered { workflow: publication::publish(), name: publication::PUBLISH, starter: publication::start_publish },
        Registered { workflow: notify::workflow(), name: notify::NAME, starter: notify::starter },
        Registered { workflow: status::workflow(), name: status::NAME, starter: status::starter },
    ]
}

/// Reads and changes the runs of all workflows.
///
/// # Errors
/// A workflow that is not sound.
pub fn runs(control: PgPool) -> Result<Client, WorkflowError> {
    let workflows: Vec<_> = all().into_iter().map(|registered| registered.workflow).collect();
    Ok(Client::new(control, Catalog::of(&workflows)?))
}
