//! From where a drill restores, and into what.

use std::sync::Arc;

use engine::{Ctx, StepError};
use snapshot::drill::{Mode, Path};
use snapshot::fetch::{self, OpenError, Opened, Source, Wanted};
use snapshot::key::SnapshotPath;
use snapshot::load::{self, LoadError, Options, Selection};
use snapshot::sign::SignatureError;
use snapshot::verify::{self, Report, Subject};
use sqlx::PgPool;

use crate::newest::Reference;
use crate::restoring;
use crate::scratch::Scratch;
use crate::services::Services;
use crate::step_error::classify;

/// A snapshot as a stranger finds it.
pub(super) struct Published {
    /// The public address.
    pub(super) base: String,
    /// Reads from it.
    pub(super) source: Source,
    /// The manifest, believed; or why it cannot be.
    pub(super) opened: Result<Arc<Opened>, String>,
}

/// Reads the manifest from the public address and believes it as `snapshots restore` would.
pub(super) async fn published(ctx: &Ctx<Services>, snapshot: &Reference) -> Result<Published, StepError> {
    let services = ctx.services();
    let base = services.settings.public_base_url.clone();
    let source = Source::http(&base).map_err(StepError::fail)?;
    let path = SnapshotPath::new(&snapshot.network, &snapshot.id);
    let opened = match &services.signing {
        None => fetch::open_known(&source, &path, &snapshot.manifest_sha256).await,
        Some(keyring) => {
            let trusted = keyring.trusted().map_err(StepError::retry)?;
            let (network, id) = (Some(path.network.clone()), Some(path.id.clone()));
            fetch::open(&source, &Wanted { network, id, trusted, seen: None, allow_rollback: true }).await
        }
    };
    let opened = match opened {
        Ok(opened) if opened.sha256 == snapshot.manifest_sha256 => Ok(Arc::new(opened)),
        Ok(other) => Err(format!("the manifest that is published has sha256 {}, not {}", other.sha256, snapshot.manifest_sha256)),
        Err(damage) if is_damage(&damage) => Err(engine::in_full(&damage)),
        Err(error) => return Err(StepError::retry(error)),
    };
    Ok(Published { base, source, opened })
}

/// Whether it says something about the snapshot. An address that refuses its readers does not, nor does one where the snapshot is not
/// yet seen: a cache may be in front of the bucket.
fn is_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Fetch(fetch) => fetch.is_damage(),
        OpenError::Signature(error) => !matches!(error, SignatureError::NoKeys | SignatureError::NotAKey { .. }),
        OpenError::Unsigned { .. } | OpenError::Manifest(_) | OpenError::Pointer { .. } | OpenError::Other { .. } => true,
        OpenError::Memory { .. }
        | OpenError::Rollback { .. }
        | OpenError::Expired { .. }
        | OpenError::Retracted { .. }
        | OpenError::None { .. }
        | OpenError::SeveralNetworks { .. } => false,
    }
}

/// What both paths work with.
pub(super) struct Site<'a> {
    pub(super) ctx: &'a Ctx<Services>,
    pub(super) scratch: &'a Scratch,
    pub(super) public: &'a Published,
}

/// A path, and what the record says beside it.
pub(super) struct Walked {
    pub(super) path: Path,
    pub(super) postgres: String,
    pub(super) chunks: u64,
}

impl Site<'_> {
    /// An empty database and a pool on it.
    pub(super) async fn database(&self, name: &str) -> Result<(String, PgPool), StepError> {
        let url = self.scratch.database(name).await.map_err(StepError::retry)?;
        let pool = load::connect(&url, restoring::jobs()).await.map_err(classify)?;
        Ok((url, pool))
    }

    /// Drops the database again: the next path needs its disk.
    pub(super) async fn drop(&self, name: &str, pool: PgPool) -> Result<(), StepError> {
        pool.close().await;
        self.scratch.drop_database(name).await.map_err(StepError::retry)
    }

    /// Makes sure that the database can take the snapshot, and the disk the files beside it: `download` bytes first, then
    /// `extracted`, of which the first may be gone before rows are loaded.
    pub(super) async fn room(
        &self,
        pool: &PgPool,
        opened: &Arc<Opened>,
        (download, extracted): (u64, u64),
    ) -> Result<String, StepError> {
        let (pool, opened, options) = (pool.clone(), Arc::clone(opened), self.options());
        let assessed = restoring::apart(self.ctx, async move || load::assess(&pool, &opened, &options).await).await?;
        let assessment = assessed.map_err(classify)?;
        if !assessment.refusals.is_empty() {
            return Err(StepError::fail(LoadError::Refused(assessment.refusals)));
        }
        let beside = if self.scratch.shares_disk() { assessment.needs.total() } else { 0 };
        let needed = extracted + download.max(beside);
        let dir = self.scratch.dir();
        match (self.scratch.free_at())(dir) {
            Some(free) if free < needed => Err(StepError::fail(format!(
                "too little disk for the drill: {free} bytes are free at {} and about {needed} are needed \
                 (archive {download}, extracted {extracted}, database {beside}); free some, or set SNAPSHOTS_DRILL_DIR, \
                 SNAPSHOTS_DRILL_DATABASE_URL or --drill sample, then retry the run",
                dir.display()
            ))),
            _ => Ok(assessment.server_version),
        }
    }

    pub(super) fn options(&self) -> Options {
        restoring::options(self.scratch.free_at())
    }

    /// Runs a proof, and says how many seconds it took.
    pub(super) async fn timed(
        &self,
        proof: impl AsyncFnOnce() -> sqlx::Result<Report> + Send + 'static,
    ) -> Result<(Report, f64), StepError> {
        let begun = std::time::Instant::now();
        let report = restoring::apart(self.ctx, proof).await?.map_err(classify)?;
        Ok((report, begun.elapsed().as_secs_f64()))
    }
}

/// Size of the database behind a pool, bytes.
pub(super) async fn size_of(pool: &PgPool) -> Result<u64, StepError> {
    let sql = "select pg_database_size(current_database())";
    let bytes: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.map_err(classify)?;
    Ok(bytes.unsigned_abs())
}

/// Reads every row of a database again. A sample has gaps by its nature, so of it only the rows are compared, all of them.
pub(super) fn proof(pool: PgPool, part: Arc<Opened>, mode: Mode) -> impl AsyncFnOnce() -> sqlx::Result<Report> + Send + 'static {
    async move || {
        let mut report = match mode {
            Mode::Full => verify::structure(&pool, &part.manifest, &Selection::default()).await?,
            Mode::Sample | Mode::Off => Report::default(),
        };
        report.append(verify::database(&pool, &part.manifest, Subject::Restored, restoring::jobs()).await?);
        Ok(report)
    }
}
