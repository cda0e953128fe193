//! The snapshot that `latest` points at, as the maintaining workflows see it: its manifest, checked against the pointer.

use engine::{StartRun, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::height::{self, HeightError};
use snapshot::key::{Key, SnapshotPath};
use snapshot::manifest::{Manifest, Pointer};
use snapshot::store::Store;

use crate::services::Services;
use crate::start::BadParams;
use crate::step_error::classify;

/// A published snapshot by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its network.
    pub network: String,
    /// Its id.
    pub id: String,
    /// sha256 (hex) of its manifest.
    pub manifest_sha256: String,
}

/// What `<network>/latest.json` says, if it is there yet.
pub(crate) async fn pointer(services: &Services, network: &str) -> Result<Option<Pointer>, StepError> {
    pointer_in(&services.store, network).await
}

/// As [`pointer`], in another bucket.
pub(crate) async fn pointer_in(store: &Store, network: &str) -> Result<Option<Pointer>, StepError> {
    let key = Key::Latest(network.to_owned());
    let Some((bytes, _)) = store.get(&key).await.map_err(classify)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(StepError::fail)
}

impl Reference {
    /// The snapshot that a pointer names.
    pub(crate) fn of(pointer: &Pointer) -> Self {
        let Pointer { network, snapshot_id, manifest_sha256, .. } = pointer.clone();
        Self { network, id: snapshot_id, manifest_sha256 }
    }

    /// What `latest` of a network says, if it says anything yet.
    pub(crate) async fn latest(services: &Services, network: &str) -> Result<Option<Self>, StepError> {
        Ok(pointer(services, network).await?.as_ref().map(Self::of))
    }

    /// The manifest, if it is there and what the reference says.
    pub(crate) async fn find(&self, services: &Services) -> Result<Option<Manifest>, StepError> {
        let key = Key::Manifest(SnapshotPath::new(&self.network, &self.id));
        let Some((bytes, _)) = services.store.get(&key).await.map_err(classify)? else { return Ok(None) };
        let same = hex::encode(Sha256::digest(&bytes)) == self.manifest_sha256;
        Ok(same.then(|| Manifest::from_bytes(&bytes).ok()).flatten())
    }

    /// The manifest; one that is missing or altered fails the step.
    pub(crate) async fn manifest(&self, services: &Services) -> Result<Manifest, StepError> {
        self.find(services).await?.ok_or_else(|| StepError::fail(std::io::Error::other(self.gone())))
    }

    /// What to say where [`Reference::find`] finds nothing.
    pub(crate) fn gone(&self) -> String {
        format!("the manifest of {}/{} is gone from the bucket or altered", self.network, self.id)
    }
}

/// Resolves the network of a request and makes the run unique by it; `params` are completed by the network.
pub(crate) async fn start_on_network(
    services: &Services,
    workflow: &'static str,
    wanted: Option<String>,
    complete: impl FnOnce(&str) -> serde_json::Value,
) -> Result<StartRun, BadParams> {
    if wanted.as_ref().is_some_and(|name| !name.chars().all(|c| c.is_ascii_graphic())) {
        let problem = "a network's name has letters, digits and hyphens".to_owned();
        return Err(BadParams::Params { workflow, problem });
    }
    let wanted = wanted.as_deref().or(services.settings.network.as_deref());
    let mut conn = services.indexed.acquire().await?;
    let network = height::network(&mut conn, wanted).await.map_err(|error| match error {
        HeightError::Database(error) => BadParams::Database(error),
        HeightError::NoNetwork => BadParams::Nothing { workflow, problem: error.to_string() },
        other => BadParams::Params { workflow, problem: other.to_string() },
    })?;
    Ok(StartRun::new(workflow, complete(&network)).unique(network))
}
