//! Step `mask`: tenants' rows by rule, before anybody can see the database. One transaction; doing it again gives the same.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use snapshot::masking::{self, MaskError, Masked};

use super::databases::Staging;
use super::restore::Restored;
use crate::services::Services;
use crate::step_error::{Classify, classify};

/// The database as it will be switched to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ready {
    #[serde(flatten)]
    pub(super) restored: Restored,
    pub(super) rules: Masked,
}

pub(super) async fn run(ctx: Ctx<Services>, restored: Restored) -> Result<Ready, StepError> {
    let services = ctx.services();
    let mut staging = Staging::open(services).await?;
    let mut next = staging.connect(&staging.next(ctx.run().0)).await?;
    let mut before = match staging.current().await? {
        Some(_) => Some(staging.connect(&staging.name).await?),
        None => None,
    };
    let rules = services.staging.as_ref().map(|staging| staging.rules.clone()).unwrap_or_default();
    let rules = masking::apply(&mut next, before.as_mut(), &rules).await.map_err(classify)?;
    Ok(Ready { restored, rules })
}

impl Classify for MaskError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database { source, .. } if source.is_retryable())
    }
}
