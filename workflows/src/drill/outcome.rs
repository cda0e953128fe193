//! Says what a drill found: `drill.json` and its signature beside the snapshot, the catalog, and the run's log.

use bytes::Bytes;
use engine::{Ctx, Level, StepError};
use serde_json::json;
use snapshot::drill::{Record, Way};
use snapshot::key::{Key, SnapshotPath};

use super::{Held, PROVED, rows};
use crate::services::Services;
use crate::signing;
use crate::step_error::classify;

/// Records the outcome and returns it; an error where the snapshot is not proved.
pub(super) async fn tell(ctx: &Ctx<Services>, found: Record) -> Result<Record, StepError> {
    let services = ctx.services();
    let record = rows::keep(&services.control, found).await.map_err(classify)?;
    let key = Key::Drill(SnapshotPath::new(&record.network, &record.snapshot_id));
    signing::replace_signed(services, &key, record.sequence, Bytes::from(record.to_bytes())).await?;
    if record.proved {
        let data = json!({
            "network": record.network, "snapshot": record.snapshot_id, "mode": record.mode, "chunks": record.chunks,
            "stockSeconds": record.rto_seconds(Way::Stock), "ownSeconds": record.rto_seconds(Way::Own),
        });
        ctx.event(Level::Info, PROVED, data).await?;
        return Ok(record);
    }
    // Whoever retries the step wants to know anew.
    ctx.save_state(&Held::default()).await?;
    let problem = record.problem.unwrap_or_default();
    Err(StepError::fail(format!(
        "snapshot {} does not restore to what its manifest says, so readers are not sent to it: {problem}",
        record.snapshot_id
    )))
}
