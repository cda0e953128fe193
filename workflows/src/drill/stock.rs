//! The path of a user with stock tools: download, sha256sum, tar, pg_restore.

use std::path::PathBuf;
use std::sync::Arc;

use engine::StepError;
use snapshot::drill::{Mode, Path, Step, Way};
use snapshot::fetch::{Opened, Size, Source};
use snapshot::key::Key;
use snapshot::stock::{Line, StockError};

use super::place::{Site, Walked, proof, size_of};
use crate::restoring;

/// What the path is called, and its database.
const NAME: &str = "stock";
/// The file that `sha256sum -c` reads.
const SUMS: &str = "snapshot.sha256";

pub(super) async fn walk(site: &Site<'_>, opened: &Arc<Opened>) -> Result<Walked, StepError> {
    let manifest = &opened.manifest;
    let (url, pool) = site.database(NAME).await?;
    let postgres = site.room(&pool, opened, (manifest.size_bytes, manifest.raw_bytes)).await?;
    let walked = |path| Walked { path, postgres, chunks: manifest.chunks.len() as u64 };
    if let Some(why) = archive_problem(site, opened).await? {
        site.drop(NAME, pool).await?;
        return Ok(walked(Path::broken(Way::Stock, why, Vec::new())));
    }
    let dir = fresh_directory(site.scratch.dir().join(NAME)).await.map_err(StepError::retry)?;
    let mut steps = Vec::new();
    for line in lines(site, opened, &dir, &url)? {
        let name = line.text().to_owned();
        if name.starts_with("sha256sum") {
            let sums = tokio::fs::read(dir.join(SUMS)).await.map_err(StepError::retry)?;
            if let Some(why) = checksum_problem(&String::from_utf8_lossy(&sums), &manifest.checksum) {
                site.drop(NAME, pool).await?;
                return Ok(walked(Path::broken(Way::Stock, why, steps)));
            }
        }
        match restoring::unless_stopped(site.ctx, line.run()).await? {
            Ok(seconds) => steps.push(Step::new(name, seconds)),
            Err(_) if site.ctx.stopping() => return Err(StepError::Yield),
            Err(error) if speaks_of_snapshot(&name, &error, site.ctx.attempt() >= super::ATTEMPTS) => {
                site.drop(NAME, pool).await?;
                return Ok(walked(Path::broken(Way::Stock, error.to_string(), steps)));
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

/// Why the archive cannot be what the manifest says, as far as its address tells. A cache in front of the bucket may not have seen it
/// yet, so it is asked for again before it counts as gone.
async fn archive_problem(site: &Site<'_>, opened: &Opened) -> Result<Option<String>, StepError> {
    let manifest = &opened.manifest;
    let base = archive_base(site, opened);
    let key = Key::Archive(manifest.path());
    let source = Source::http(base).map_err(StepError::fail)?;
    let wrong = match source.size(&key).await.map_err(StepError::retry)? {
        Size::Bytes(bytes) if bytes == manifest.size_bytes => return Ok(None),
        // The archive is downloaded and digested in any case.
        Size::Unknown => return Ok(None),
        Size::Bytes(bytes) => format!("{base}/{key} has {bytes} bytes instead of {}", manifest.size_bytes),
        Size::Missing => format!("{base}/{key} is not there"),
    };
    if site.ctx.attempt() < super::ATTEMPTS {
        return Err(StepError::retry(std::io::Error::other(wrong)));
    }
    Ok(Some(wrong))
}

/// Where the signed manifest sends its readers, whatever this service's settings are by now.
fn archive_base<'a>(site: &'a Site<'_>, opened: &'a Opened) -> &'a str {
    opened.manifest.archive_base(site.ctx.services().settings.archive_base_url(opened.manifest.archive))
}

/// Why the published checksum is not that of the signed manifest: `sha256sum -c` would prove another archive.
fn checksum_problem(sums: &str, signed: &str) -> Option<String> {
    let digest = sums.split_whitespace().next().unwrap_or_default();
    let differs = signed.strip_prefix("sha256:") != Some(digest);
    differs.then(|| format!("{SUMS} names the digest {digest:?}, the manifest {signed}"))
}

/// The command lines, in their order. What is not needed any more goes at once: an archive is large.
fn lines(site: &Site<'_>, opened: &Opened, dir: &std::path::Path, url: &str) -> Result<Vec<Line>, StepError> {
    let path = opened.manifest.path();
    let archive = format!("{}/{}", archive_base(site, opened), Key::Archive(path.clone()));
    let checksum = format!("{}/{}", site.public.base, Key::Checksum(path.clone()));
    let pg_restore = &site.ctx.services().pg_restore;
    Ok(vec![
        Line::download(dir, &archive),
        Line::download(dir, &checksum),
        Line::check(dir, SUMS),
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

/// Whether a failed line is the snapshot's fault. A digest that differs is; what `tar` and `pg_restore` cannot do may be the fault of
/// this machine or of the scratch server, until they cannot do it in the last attempt either. A program that was killed, a disk that
/// filled up and a download that broke off say nothing about the snapshot.
fn speaks_of_snapshot(line: &str, error: &StockError, last: bool) -> bool {
    let StockError::Failed { status, said, .. } = error else { return false };
    let own_end = status.code().is_some() && !said.contains("No space left on device");
    own_end && (line.starts_with("sha256sum") || last && !line.starts_with("curl"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_checksum_that_the_manifest_does_not_confirm_is_a_problem() {
        let sums = "ab12  snapshot-2026-01-01.tar.zst\n";
        assert_eq!(checksum_problem(sums, "sha256:ab12"), None);
        let problem = checksum_problem(sums, "sha256:ab13").unwrap();
        assert!(problem.contains("ab12") && problem.contains("ab13"), "{problem}");
        assert!(checksum_problem("", "sha256:ab13").is_some());
    }

    #[test]
    fn an_accident_on_this_machine_is_no_verdict_on_a_snapshot() {
        let failed = |line: &str, status, said: &str, last| {
            let error = StockError::Failed { line: line.into(), status: ExitStatus::from_raw(status), said: said.into() };
            speaks_of_snapshot(line, &error, last)
        };
        let (one, killed) = (1 << 8, 9);
        assert!(failed("sha256sum -c sums", one, "FAILED", false), "the archive is not what its checksum says");
        assert!(!failed("sha256sum -c sums", killed, "", true));
        assert!(!failed("pg_restore -j2", one, "server closed the connection", false), "another attempt may do it");
        assert!(failed("pg_restore -j2", one, "invalid input syntax", true));
        assert!(!failed("tar --zstd -xf a", one, "No space left on device", true));
        assert!(!failed("curl -fsSLO a", one, "timed out", true));
    }
}
