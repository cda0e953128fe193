//! A restore drill as the part of a step: restores a published snapshot from its public address, as a stranger would, proves what
//! came out, and records the outcome beside the snapshot.
//!
//! Two workflows have such a step: `snapshot`, before it promotes, and `restore_drill`. Invariants: a snapshot that was not proved
//! never passes; a drill that was killed leaves nothing that the next one does not take away; what it found out is said once;
//! and a disproof stands until a full drill proves the snapshot.

mod outcome;
mod own;
mod place;
mod rows;
mod stock;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use engine::{Ctx, Level, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapshot::drill::{Mode, Path, Record, VERSION, Way, stamp};
use snapshot::fetch::Opened;

use crate::newest::Reference;
use crate::services::Services;
use crate::status;

pub use rows::Proved;
pub(crate) use rows::of_network;

/// Kind of the event that says why a snapshot could not be proved, or was found to be wrong.
pub const FAILED: &str = "snapshot.drill_failed";
/// Kind of the event that says that a snapshot was proved.
pub const PROVED: &str = "snapshot.drill_proved";

/// How often a drill is tried before it counts as failed: what can pass is the network's or the scratch server's fault.
pub(crate) const ATTEMPTS: u32 = 3;
/// A path walked longer ago is walked again when somebody retries the step.
const GOOD_FOR: TimeDelta = TimeDelta::hours(12);

/// What an attempt leaves to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Held {
    begun_at: Option<DateTime<Utc>>,
    mode: Option<Mode>,
    postgres: String,
    chunks: u64,
    paths: Vec<Path>,
    record: Option<Record>,
}

/// Restores and proves a snapshot. Returns its record only if it was proved.
///
/// # Errors
/// [`StepError::Fail`] where it is not what its manifest says; [`StepError::Retry`] where nobody could find out.
pub(crate) async fn prove(ctx: &Ctx<Services>, snapshot: &Reference, mode: Mode) -> Result<Record, StepError> {
    let found = match find_out(ctx, snapshot, mode).await {
        Ok(record) => outcome::tell(ctx, record).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &found
        && (matches!(error, StepError::Fail(_)) || ctx.attempt() >= ATTEMPTS)
        && !matches!(error, StepError::Yield)
    {
        alarm(ctx, snapshot, &engine::in_full(error)).await?;
    }
    found
}

/// Whoever reads the run's error or not: somebody must look.
async fn alarm(ctx: &Ctx<Services>, snapshot: &Reference, problem: &str) -> Result<(), StepError> {
    tracing::error!(snapshot = snapshot.id, problem, "the restore drill failed");
    let data = json!({ "network": snapshot.network, "snapshot": snapshot.id, "problem": problem });
    ctx.event(Level::Error, FAILED, data).await?;
    status::write(ctx.services(), &snapshot.network).await;
    Ok(())
}

async fn find_out(ctx: &Ctx<Services>, snapshot: &Reference, mode: Mode) -> Result<Record, StepError> {
    // A path of a sample proves less than one of all.
    let goes_on = |held: &Held| held.mode == Some(mode) && held.begun_at.is_some_and(|begun| Utc::now() - begun < GOOD_FOR);
    let mut held: Held = ctx.state().await?.filter(goes_on).unwrap_or_default();
    held.mode = Some(mode);
    if let Some(record) = held.record {
        return Ok(record);
    }
    held.begun_at.get_or_insert_with(Utc::now);
    let public = place::published(ctx, snapshot).await?;
    match &public.opened {
        Ok(opened) => walk(ctx, &public, opened, mode, &mut held).await?,
        Err(damage) => held.paths = vec![Path::broken(Way::Own, damage.clone(), Vec::new())],
    }
    let record = recorded(snapshot, &public, mode, &held);
    held.record = Some(record.clone());
    ctx.save_state(&held).await?;
    Ok(record)
}

/// Walks the paths that are left, each into a database of its own.
async fn walk(
    ctx: &Ctx<Services>,
    public: &place::Published,
    opened: &Arc<Opened>,
    mode: Mode,
    held: &mut Held,
) -> Result<(), StepError> {
    let services = ctx.services();
    let nowhere =
        || StepError::fail("this process has no PostgreSQL to restore into: start the worker with --drill full or sample");
    let scratch = services.scratch.as_ref().ok_or_else(nowhere)?.open().await.map_err(StepError::retry)?;
    let site = place::Site { ctx, scratch: &scratch, public };
    let walked = async {
        let ways: &[Way] = if mode == Mode::Full { &[Way::Stock, Way::Own] } else { &[Way::Own] };
        for way in ways {
            if held.paths.iter().any(|path| path.way == *way) {
                continue;
            }
            let walked = match way {
                Way::Stock => stock::walk(&site, opened).await?,
                Way::Own => own::walk(&site, opened, mode).await?,
            };
            held.postgres = walked.postgres;
            held.chunks = walked.chunks;
            held.paths.push(walked.path);
            ctx.save_state(held).await?;
        }
        Ok(())
    };
    let walked = walked.await;
    if let Err(error) = scratch.close().await {
        tracing::warn!(error = engine::in_full(&error), "what the drill made could not be taken away; the next drill does");
    }
    walked
}

fn recorded(snapshot: &Reference, public: &place::Published, mode: Mode, held: &Held) -> Record {
    let now = Utc::now();
    let manifest = public.opened.as_ref().ok().map(|opened| &opened.manifest);
    let created: Option<DateTime<Utc>> = manifest.and_then(|manifest| manifest.created_at.parse().ok());
    let failed = held.paths.iter().flat_map(|path| &path.failed).cloned().collect::<Vec<_>>();
    Record {
        version: VERSION,
        network: snapshot.network.clone(),
        snapshot_id: snapshot.id.clone(),
        sequence: manifest.map_or(0, |manifest| manifest.sequence),
        manifest_sha256: snapshot.manifest_sha256.clone(),
        mode,
        proved: !held.paths.is_empty() && held.paths.iter().all(|path| path.proved),
        problem: (!failed.is_empty()).then(|| failed.join("; ")),
        standing: None,
        begun_at: stamp(held.begun_at.unwrap_or(now)),
        ended_at: stamp(now),
        age_seconds: created.map_or(0, |created| (now - created).num_seconds().max(0).unsigned_abs()),
        from: public.base.clone(),
        chunks: held.chunks,
        chunks_of: manifest.map_or(0, |manifest| manifest.chunks.len() as u64),
        archive_bytes: manifest.map_or(0, |manifest| manifest.size_bytes),
        raw_bytes: manifest.map_or(0, |manifest| manifest.raw_bytes),
        postgres: held.postgres.clone(),
        program: env!("CARGO_PKG_VERSION").into(),
        paths: held.paths.clone(),
    }
}
