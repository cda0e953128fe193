//! Step `promote`: moves `latest.json` of the profile's bucket to the new snapshot, by compare-and-swap, never backwards.

use bytes::Bytes;
use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapshot::key::Key;

use super::dump::{Dumped, configured};
use crate::pointer::{self, Move};
use crate::services::Services;
use crate::step_error::classify;
use crate::{full_catalog, signing};

/// What the run achieved.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Promoted {
    network: String,
    id: String,
    block_height: u64,
    tables: usize,
    rows: u64,
    bytes: u64,
}

/// A run that failed here and is retried much later: pruning has taken its snapshot for one that nobody goes on with.
async fn refuse_withdrawn(ctx: &Ctx<Services>) -> Result<(), StepError> {
    let row = full_catalog::of_run(&ctx.services().control, ctx.run().0).await.map_err(classify)?;
    match row {
        Some(row) if row.state == "cutting" || row.state == "published" => Ok(()),
        _ => Err(StepError::fail(std::io::Error::other(
            "this snapshot has expired, and its objects are being removed; start the workflow anew",
        ))),
    }
}

pub(super) async fn run(ctx: Ctx<Services>, dumped: Dumped) -> Result<Promoted, StepError> {
    let services = ctx.services();
    let full = configured(services)?;
    let Dumped { pointer, tables, rows } = dumped;
    refuse_withdrawn(&ctx).await?;
    let key = Key::Pointer(pointer.path());
    signing::put_signed(services, &full.store, (key, pointer.sequence), Bytes::from(pointer.to_bytes())).await?;
    pointer::point_in(&full.store, &pointer, Move::Forwards).await?;
    full_catalog::mark_published(&services.control, ctx.run().0).await.map_err(classify)?;
    let recipients = full.recipients.names();
    ctx.event(Level::Info, "full_profile.cut", json!({ "id": pointer.snapshot_id, "recipients": recipients })).await?;
    let (network, id) = (pointer.network, pointer.snapshot_id);
    Ok(Promoted { network, id, block_height: pointer.block_height, tables, rows, bytes: pointer.size_bytes })
}
