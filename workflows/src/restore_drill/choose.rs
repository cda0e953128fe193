//! Step `choose`: which snapshot is restored.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Params;
use crate::catalog::{self, SnapshotRow};
use crate::newest::Reference;
use crate::services::Services;
use crate::step_error::classify;

/// The snapshot chosen; none where nothing is promoted yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Chosen {
    pub(super) snapshot: Option<Reference>,
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Chosen, StepError> {
    let control = &ctx.services().control;
    let network = params.network.unwrap_or_default();
    let row = match &params.id {
        Some(id) => {
            let found = catalog::known(control, Some(&network), id).await.map_err(classify)?.pop();
            Some(found.ok_or_else(|| StepError::fail(format!("there is no published or retracted snapshot {id} of {network}")))?)
        }
        None => drawn(catalog::promoted(control, &network).await.map_err(classify)?, ctx.run().0.as_bytes()),
    };
    let reference = |row: SnapshotRow| Reference {
        network: row.network,
        id: row.id,
        manifest_sha256: row.manifest_sha256.unwrap_or_default(),
    };
    Ok(Chosen { snapshot: row.map(reference) })
}

/// One of all but the newest, which was proved when it was promoted; the newest where there is no other. The same seed draws the same.
fn drawn(mut newest_first: Vec<SnapshotRow>, seed: &[u8]) -> Option<SnapshotRow> {
    if newest_first.len() > 1 {
        newest_first.remove(0);
    }
    newest_first.into_iter().min_by_key(|row| Sha256::new().chain_update(seed).chain_update(&row.id).finalize())
}
