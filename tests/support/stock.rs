//! What a user does with a published archive, with stock tools.

use std::path::Path;
use std::process::{Output, Stdio};

use snapshot::key::Key;
use snapshot::manifest::Manifest;
use tempfile::TempDir;
use tokio::process::Command;

use super::files::pg_bin;
use super::service::Site;

/// An extracted archive.
pub(crate) struct Extracted {
    dir: TempDir,
}

/// Checks the archive in the bucket with `sha256sum -c` and extracts it with `tar --zstd -xf`.
pub(crate) async fn extract(site: &Site, manifest: &Manifest) -> Extracted {
    let dir = tempfile::tempdir().unwrap();
    for key in [Key::Archive(manifest.path()), Key::Checksum(manifest.path())] {
        let file = site.bucket.root().join(key.to_string());
        std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    let archive = manifest.path().archive_name();
    run(dir.path(), Command::new("sha256sum").args(["-c", "snapshot.sha256"])).await;
    run(dir.path(), Command::new("tar").args(["--zstd", "-xf", &archive])).await;
    Extracted { dir }
}

impl Extracted {
    /// Runs `pg_restore` with these flags on the directory into a database.
    pub(crate) async fn pg_restore(&self, url: &str, flags: &[&str]) {
        run(self.dir.path(), Command::new(pg_bin().join("pg_restore")).args(flags).args(["-d", url, "snapshot/"])).await;
    }

    /// `pg_restore -f -`, and what it printed into `psql`.
    pub(crate) async fn script(&self, url: &str) {
        let script = run(self.dir.path(), Command::new(pg_bin().join("pg_restore")).args(["-f", "-", "snapshot/"])).await;
        let file = self.dir.path().join("script.sql");
        std::fs::write(&file, script.stdout).unwrap();
        super::files::psql_file(url, &file).await;
    }
}

async fn run(dir: &Path, command: &mut Command) -> Output {
    let output = command.current_dir(dir).stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
