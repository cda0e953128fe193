//! What restores have proved, as the status shows it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use snapshot::drill::{Mode, Record, Way};
use snapshot::manifest::Pointer;

use super::StatusError;
use crate::drill::{self, Proved};
use crate::services::Services;

/// What is known of drills.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillFigures {
    /// What `latest` had to pass; `None`: it was promoted by a program that knew no drills.
    pub mode: Option<Mode>,
    /// The newest promoted snapshot that its last drill proved; its age is what freshness is judged by.
    pub proved: Option<ProvedSnapshot>,
    /// The last drill, of whichever snapshot.
    pub last: Option<LastDrill>,
    /// Why a snapshot that is still published does not restore to what its manifest says, if one does not.
    pub problem: Option<String>,
}

/// A snapshot that was proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvedSnapshot {
    /// Its id.
    pub id: String,
    /// When it was proved last.
    pub proved_at: DateTime<Utc>,
    /// Age of the snapshot.
    pub age_seconds: u64,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastDrill {
    /// The snapshot.
    pub id: String,
    /// How much was restored.
    pub mode: Mode,
    /// When it ended.
    pub at: String,
    /// The outcome.
    pub proved: bool,
    /// Age of the snapshot when it ended.
    pub snapshot_age_seconds: u64,
    /// Seconds from the first byte to a database by stock tools; full drills only.
    pub stock_rto_seconds: Option<u64>,
    /// The same by `snapshots restore`.
    pub own_rto_seconds: Option<u64>,
}

impl DrillFigures {
    /// The age that freshness is judged by: that of `latest` if nobody wanted it proved, else that of the newest proved snapshot.
    pub(super) fn judged_age(&self, latest: Option<u64>) -> Option<u64> {
        match self.mode {
            Some(Mode::Off) => latest,
            _ => self.proved.as_ref().map(|proved| proved.age_seconds),
        }
    }
}

pub(super) async fn find(
    services: &Services,
    network: &str,
    latest: Option<&Pointer>,
    at: DateTime<Utc>,
) -> Result<DrillFigures, StatusError> {
    let known = drill::of_network(&services.control, network).await?;
    let proved = match known.proved {
        Some(proved) => Some(proved),
        // The catalog may be younger than the bucket; the pointer is signed.
        None if known.disproved.is_none() => latest.map(proved_by).transpose()?.flatten(),
        None => None,
    };
    let age = |created: DateTime<Utc>| (at - created).num_seconds().max(0).unsigned_abs();
    let proved = proved.map(|one| ProvedSnapshot { age_seconds: age(one.created_at), id: one.id, proved_at: one.drilled_at });
    let said = |record: Record| format!("{}: {}", record.snapshot_id, record.problem.unwrap_or_default());
    Ok(DrillFigures {
        mode: latest.and_then(|pointer| pointer.drill.as_ref()).map(|drill| drill.mode),
        proved,
        last: known.last.map(last),
        problem: known.disproved.map(said),
    })
}

/// What a pointer says about its own snapshot.
fn proved_by(pointer: &Pointer) -> Result<Option<Proved>, chrono::ParseError> {
    let Some(at) = pointer.drill.as_ref().and_then(|drill| drill.at.as_deref()) else { return Ok(None) };
    Ok(Some(Proved { id: pointer.snapshot_id.clone(), created_at: pointer.created_at.parse()?, drilled_at: at.parse()? }))
}

fn last(record: Record) -> LastDrill {
    LastDrill {
        stock_rto_seconds: record.rto_seconds(Way::Stock),
        own_rto_seconds: record.rto_seconds(Way::Own),
        id: record.snapshot_id,
        mode: record.mode,
        at: record.ended_at,
        proved: record.proved,
        snapshot_age_seconds: record.age_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproved_snapshot_is_fresh_only_where_nobody_wanted_proof() {
        let proved = |age_seconds| ProvedSnapshot { id: "a".into(), proved_at: Utc::now(), age_seconds };
        let figures = |mode, age: Option<u64>| DrillFigures { mode, proved: age.map(proved), ..Default::default() };
        assert_eq!(figures(Some(Mode::Off), Some(90)).judged_age(Some(5)), Some(5));
        assert_eq!(figures(Some(Mode::Full), Some(90)).judged_age(Some(5)), Some(90));
        assert_eq!(figures(Some(Mode::Sample), None).judged_age(Some(5)), None);
        assert_eq!(figures(None, None).judged_age(Some(5)), None, "of a program that knew no drills");
    }
}
