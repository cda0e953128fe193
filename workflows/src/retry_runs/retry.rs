//! Step `retry`: walks over the matching runs, oldest first, a page at a time, and retries each for whoever asked.
//!
//! Invariant: a page that is walked again after a crash retries nothing twice, since each retry has a key of its own.

use chrono::{DateTime, Utc};
use engine::{AuditFilter, Ctx, Idempotency, Level, RetryError, RunCursor, RunFilter, RunId, StartError, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Params;
use crate::services::Services;
use crate::step_error::classify;

/// Runs between two saves.
const PAGE: u32 = 50;
/// Refusals that the log of the run tells one by one.
const TOLD: u64 = 100;

/// How far it is, and in the end what came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// Runs that go on, or were begun again.
    retried: u64,
    /// Runs that could not be; the log says which and why.
    refused: u64,
    /// The last run looked at.
    after: Option<(DateTime<Utc>, RunId)>,
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Done, StepError> {
    let actor = asked_by(&ctx).await?;
    let mut done: Done = ctx.state().await?.unwrap_or_default();
    let filter = RunFilter::from(params.filter.clone());
    loop {
        let after = done.after.map(|(created_at, id)| RunCursor { created_at, id });
        let page = ctx.services().runs.matching(&filter, after, PAGE).await.map_err(classify)?;
        let Some(last) = page.last() else { return Ok(done) };
        for found in &page {
            match one(&ctx, found.id, &params, &actor).await? {
                None => done.retried += 1,
                Some(why) => {
                    done.refused += 1;
                    if done.refused <= TOLD {
                        ctx.event(Level::Warn, "retry.refused", json!({ "run": found.id, "why": why })).await?;
                    }
                }
            }
        }
        done.after = Some((last.created_at, last.id));
        ctx.save_state(&done).await?;
        ctx.progress(done.retried + done.refused, 0, "runs");
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
    }
}

/// Retries a run; why not, if it cannot be.
async fn one(ctx: &Ctx<Services>, run: RunId, params: &Params, actor: &str) -> Result<Option<String>, StepError> {
    let (principal, request) = (format!("run {}", ctx.run()), format!("retry {run}"));
    let key = Idempotency { principal: &principal, request: &request, key: "once", body: b"" };
    match ctx.services().runs.retry_once(run, params.from, Some(&key), actor).await {
        Ok(_) => Ok(None),
        Err(RetryError::Database(error) | RetryError::Start(StartError::Database(error))) => Err(classify(error)),
        Err(error @ RetryError::Key(_)) => Err(StepError::retry(error)),
        Err(refused) => Ok(Some(refused.to_string())),
    }
}

/// Who started this run, as the audit log knows: the parameters could say anything.
async fn asked_by(ctx: &Ctx<Services>) -> Result<String, StepError> {
    let runs = &ctx.services().runs;
    let of = |run: RunId| AuditFilter { subject: Some(run.to_string()), ..AuditFilter::default() };
    let acts = runs.audit_log(&of(ctx.run()), 1000).await.map_err(classify)?;
    if let Some(start) = acts.into_iter().find(|entry| entry.act == "run.start") {
        return Ok(start.actor);
    }
    // A retry from the start is noted with the run that it is a retry of.
    let parent = runs.run(ctx.run()).await.map_err(classify)?.and_then(|run| run.parent_run_id);
    let acts = match parent {
        Some(parent) => runs.audit_log(&of(parent), 1000).await.map_err(classify)?,
        None => Vec::new(),
    };
    let retry = acts.into_iter().find(|entry| entry.details["run"] == json!(ctx.run()));
    retry.map(|entry| entry.actor).ok_or_else(|| StepError::fail("nobody asked for this run, so it acts for nobody"))
}
