//! What monitoring is told about snapshots and the indexed chain, one named function per statement.
//! Invariant: cheap at any length of the chain, since it is asked every few seconds: rows of `index_progress` and the catalog.

use chrono::{DateTime, Utc};
use engine::{Sample, Source};
use metrics::{Unit, counter, describe_counter, describe_gauge};
use snapshot::drill::{Record, Way};
use sqlx::PgPool;

use crate::services::Services;
use crate::{drill, scrub, status};

const LAST_SUCCESS: &str = "snapshots_snapshot_last_success_timestamp_seconds";
const LAST_VERIFIED: &str = "snapshots_snapshot_last_verified_timestamp_seconds";
const DISPROVED: &str = "snapshots_snapshot_disproved";
const RTO: &str = "snapshots_drill_rto_seconds";
const DRILLED_AGE: &str = "snapshots_drill_snapshot_age_seconds";
const SIZE: &str = "snapshots_snapshot_size_bytes";
const CHANGED_RANGES: &str = "snapshots_snapshot_changed_ranges";
const AUDIT_FAILED: &str = "snapshots_snapshot_audit_failed";
const HEIGHT: &str = "snapshots_indexed_height";
const TIP_LAG: &str = "snapshots_tip_lag_blocks";
const GAP: &str = "snapshots_index_gap_blocks";
const BYTES: &str = "snapshots_snapshot_bytes_total";

/// What is done to bytes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Text of rows, read from the database.
    Read,
    /// Chunks, compressed.
    Stored,
    /// The archive, read back and digested.
    Verified,
    /// The archive, sent as parts.
    Uploaded,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Read, Self::Stored, Self::Verified, Self::Uploaded];

    /// Counts bytes that went through this phase in this process.
    pub(crate) fn count(self, bytes: u64) {
        let phase = match self {
            Self::Read => "read",
            Self::Stored => "stored",
            Self::Verified => "verified",
            Self::Uploaded => "uploaded",
        };
        counter!(BYTES, "phase" => phase).increment(bytes);
    }
}

/// Says what each metric of the workflows means; call it once, after a recorder was installed.
pub fn describe_metrics() {
    describe_gauge!(LAST_SUCCESS, Unit::Seconds, "When `latest` was last moved to a snapshot that is still listed; 0 if never.");
    describe_gauge!(
        LAST_VERIFIED,
        Unit::Seconds,
        "When a scrub or a restore drill last looked at what is published and found nothing wrong; 0 if none has yet."
    );
    describe_gauge!(
        DISPROVED,
        "1 if a restore drill found that a published snapshot does not restore to what its manifest says, else 0."
    );
    describe_gauge!(RTO, Unit::Seconds, "How long the last restore drill took from the first byte to a proved database, by way.");
    describe_gauge!(DRILLED_AGE, Unit::Seconds, "Age of the snapshot that was restored last, when its drill ended.");
    describe_gauge!(SIZE, Unit::Bytes, "Size of the archive of the newest snapshot.");
    describe_gauge!(CHANGED_RANGES, "Ranges of published history that differ from the database or the bucket.");
    describe_gauge!(AUDIT_FAILED, "1 if the newest snapshot run that looked at the chain refused it, else 0.");
    describe_gauge!(HEIGHT, "Highest indexed block.");
    describe_gauge!(TIP_LAG, "Blocks that the node has shown and that are not indexed without a gap yet.");
    describe_gauge!(GAP, "Blocks between the highest indexed one and the highest below which none is missing.");
    describe_counter!(
        BYTES,
        Unit::Bytes,
        "Bytes of snapshots: read (text of rows), stored (chunks), verified, uploaded (archive)."
    );
    for phase in Phase::ALL {
        phase.count(0);
    }
}

/// The source of these figures.
pub fn source(services: Services) -> Source {
    Source::new("snapshots", move || {
        let services = services.clone();
        async move { Ok(measure(&services).await?) }
    })
}

async fn measure(services: &Services) -> sqlx::Result<Vec<Sample>> {
    let mut series = Vec::new();
    for progress in progress(&services.indexed).await? {
        let network = progress.network.as_str();
        let control = &services.control;
        let (promoted_at, bytes) = newest(control, network).await?;
        let drills = drill::of_network(control, network).await?;
        let scrubbed_at = last_scrubbed(control, network).await?;
        let verified_at = scrubbed_at.max(drills.proved.as_ref().map(|proved| proved.drilled_at));
        let changed = status::changed_ranges(control, network).await?;
        let refused = status::audit_problem(control, network).await?.is_some();
        let figures = [
            (LAST_SUCCESS, seconds(promoted_at)),
            (LAST_VERIFIED, seconds(verified_at)),
            (SIZE, bytes.unwrap_or_default() as f64),
            (CHANGED_RANGES, changed as f64),
            (DISPROVED, f64::from(u8::from(drills.disproved.is_some()))),
            (AUDIT_FAILED, f64::from(u8::from(refused))),
            (HEIGHT, progress.indexed as f64),
            (TIP_LAG, (progress.seen - progress.contiguous).max(0) as f64),
            (GAP, (progress.indexed - progress.contiguous).max(0) as f64),
        ];
        series.extend(figures.map(|(name, value)| Sample::new(name, &[("network", network)], value)));
        series.extend(drills.last.iter().flat_map(|record| drilled(record, network)));
    }
    Ok(series)
}

fn drilled(record: &Record, network: &str) -> Vec<Sample> {
    let ways = [("stock", Way::Stock), ("own", Way::Own)];
    let rto = ways.into_iter().filter_map(|(name, way)| {
        let seconds = record.rto_seconds(way)?;
        Some(Sample::new(RTO, &[("network", network), ("way", name)], seconds as f64))
    });
    rto.chain([Sample::new(DRILLED_AGE, &[("network", network)], record.age_seconds as f64)]).collect()
}

fn seconds(at: Option<DateTime<Utc>>) -> f64 {
    at.map_or(0.0, |at| at.timestamp_millis() as f64 / 1e3)
}

#[derive(sqlx::FromRow)]
struct Progress {
    network: String,
    indexed: i64,
    contiguous: i64,
    seen: i64,
}

async fn progress(indexed: &PgPool) -> sqlx::Result<Vec<Progress>> {
    let sql = "select network, last_indexed_block as indexed, last_contiguous_block as contiguous, highest_seen_block as seen
               from public.index_progress order by network";
    sqlx::query_as(sql).fetch_all(indexed).await
}

/// When the newest snapshot was promoted, and its archive's size.
async fn newest(control: &PgPool, network: &str) -> sqlx::Result<(Option<DateTime<Utc>>, Option<i64>)> {
    let sql = "select promoted_at, size_bytes from snapshots.snapshot
               where network = $1 and state = 'published' and promoted_at is not null order by sequence desc limit 1";
    let found = sqlx::query_as(sql).bind(network).fetch_optional(control).await?;
    Ok(found.unwrap_or_default())
}

async fn last_scrubbed(control: &PgPool, network: &str) -> sqlx::Result<Option<DateTime<Utc>>> {
    let sql = "select r.done_at from snapshots.run r
               where r.workflow = $1 and r.unique_key = $2 and r.state = 'succeeded' and r.done_at is not null
                 and not exists (select 1 from snapshots.event e where e.run_id = r.id and e.kind = $3)
               order by r.done_at desc limit 1";
    sqlx::query_scalar(sql).bind(scrub::NAME).bind(network).bind(scrub::MISMATCH).fetch_optional(control).await
}
