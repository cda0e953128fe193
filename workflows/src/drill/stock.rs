//! The path of a user with stock tools: download, sha256sum, tar, pg_restore.

use std::path::PathBuf;
use std::sync::Arc;

use engine::StepError;
use snapshot::drill::{Mode, Path, Step, Way};
use snapshot::fetch::Opened;
use snapshot::key::Key;
use snapshot::stock::{Line, StockError};

use super::place::{Site, Walked, proof, size_of};
use crate::restoring;

/// What the path is called, and its database.
const NAME: &str = "stock";

pub(super) async fn walk(site: &Site<'_>, opened: &Arc<Opened>) -> Result<Walked, StepError> {
    let manifest = &opened.manifest;
    let (url, pool) = site.database(NAME).await?;
    let postgres = site.room(&pool, opened, (manifest.size_bytes, manifest.raw_bytes)).await?;
    let walked = |path| Walked { path, postgres, chunks: manifest.chunks.len() as u64 };
    let dir = fresh_directory(site.scratch.dir().join(NAME)).await.map_err(StepError::retry)?;
    let mut steps = Vec::new();
    for line in lines(site, opened, &dir, &url)? {
        let (name, is_download) = (line.text().to_owned(), line.text().starts_with("curl"));
        match restoring::unless_stopped(site.ctx, line.run()).await? {
            Ok(seconds) => steps.push(Step::new(name, seconds)),
            Err(StockError::Failed { said, line, status }) if !is_download && !says_disk_full(&said) => {
                let why = format!("`{line}` ended with {status}: {said}");
                site.drop(NAME, pool).await?;
                return Ok(walked(Path::broken(Way::Stock, why, steps)));
            }
            Err(error) => return Err(StepError::retry(error)),
        }
    }
    let (report, seconds) = site.timed(proof(pool.clone(), Arc::clone(opened), Mode::Full)).await?;
    let database_bytes = size_of(&pool).await?;
    site.drop(NAME, pool).await?;
    tokio::fs::remove_dir_all(&dir).await.map_err(StepError::retry)?;
    let path = Path::proven_by(Way::Stock, &report, seconds, steps);
    Ok(walked(Path { fetched_bytes: manifest.size_bytes, database_bytes, ..path }))
}

/// The command lines, in their order. What is not needed any more goes at once: an archive is large.
fn lines(site: &Site<'_>, opened: &Opened, dir: &std::path::Path, url: &str) -> Result<Vec<Line>, StepError> {
    let path = opened.manifest.path();
    let settings = &site.ctx.services().settings;
    let archive = format!("{}/{}", settings.archive_base_url(opened.manifest.archive), Key::Archive(path.clone()));
    let checksum = format!("{}/{}", site.public.base, Key::Checksum(path.clone()));
    let pg_restore = &site.ctx.services().pg_restore;
    Ok(vec![
        Line::download(dir, &archive),
        Line::download(dir, &checksum),
        Line::check(dir, "snapshot.sha256"),
        Line::extract(dir, &path.archive_name()),
        Line::remove(dir, &path.archive_name()),
        Line::restore(dir, pg_restore, url, restoring::jobs()).map_err(StepError::fail)?,
    ])
}

async fn fresh_directory(dir: PathBuf) -> std::io::Result<PathBuf> {
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    tokio::fs::create_dir_all(&dir).await?;
    Ok(dir)
}

/// A disk that fills up in the middle says nothing about the snapshot.
fn says_disk_full(said: &str) -> bool {
    said.contains("No space left on device")
}
