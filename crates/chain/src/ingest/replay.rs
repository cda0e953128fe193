//! Replays a recording as the node would have posted it.

use std::path::Path;

use super::{Ingest, IngestError, Outcome};
use crate::recording::{Post, Recording};

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// POSTs read.
    pub posts: u64,
    /// New blocks.
    pub stored: u64,
    /// Blocks delivered again.
    pub duplicates: u64,
    /// Blocks that left the canonical chain on the way; one that leaves twice counts twice.
    pub orphaned: u64,
    /// POSTs that hold nothing to store.
    pub ignored: u64,
}

impl ReplaySummary {
    fn count(&mut self, outcome: &Outcome) {
        self.posts += 1;
        match outcome {
            Outcome::Ignored => self.ignored += 1,
            Outcome::Duplicate { .. } | Outcome::Completed { .. } => self.duplicates += 1,
            Outcome::Stored(stored) => {
                self.stored += 1;
                self.orphaned += stored.orphaned.len() as u64;
            }
        }
    }
}

impl Ingest {
    /// Applies every POST of a recording in order; `progress` hears the running summary after each.
    ///
    /// # Errors
    /// The first error ends it; what was applied before stays, and replaying again changes nothing of it.
    pub async fn replay_file(
        &self,
        path: &Path,
        mut progress: impl FnMut(&ReplaySummary) + Send,
    ) -> Result<ReplaySummary, IngestError> {
        let mut summary = ReplaySummary::default();
        for post in Recording::open(path)? {
            let Post { path, payload, .. } = post?;
            summary.count(&self.apply(&path, payload.text().as_bytes()).await?);
            progress(&summary);
        }
        Ok(summary)
    }
}
