//! Whether a snapshot's archive is stored, or spliced by the service for whoever asks.

use chrono::{DateTime, Utc};
use engine::StepError;
use snapshot::manifest::Archive;

use crate::catalog;
use crate::services::{ArchiveMode, Services};
use crate::step_error::classify;

/// Decides it for the snapshot that is being planned.
pub(super) async fn decide(services: &Services, network: &str, now: DateTime<Utc>) -> Result<Archive, StepError> {
    Ok(match services.settings.archive {
        ArchiveMode::Every => Archive::Stored,
        ArchiveMode::OnRequest => Archive::OnRequest,
        ArchiveMode::Weekly => match catalog::archive_of_week(&services.control, network, now).await.map_err(classify)? {
            None => Archive::Stored,
            Some(_) => Archive::OnRequest,
        },
    })
}
