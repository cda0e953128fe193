//! What a user does with a published archive, with the user's own programs: curl, sha256sum, tar with zstd, pg_restore.
//!
//! Not our restore (that is `load`), and not a judge of the result (that is `verify`). Demo and drills run the same command lines
//! as the documentation prints.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use tokio::process::Command;

use crate::client::{self, ClientError};

/// The programs beside `pg_restore`.
const TOOLS: [&str; 4] = ["curl", "sha256sum", "tar", "zstd"];

/// What the archive is called where it is downloaded by its lasting name.
pub const LATEST: &str = "latest.tar.zst";

/// A command line of the user's that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// It cannot be started.
    #[error("cannot run `{line}`: install the program, or put it on the PATH")]
    Start {
        /// The command line.
        line: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("`{line}` ended with {status}: {said}")]
    Failed {
        /// The command line.
        line: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of what it printed.
        said: String,
    },
    /// `pg_restore` cannot be pointed at the database.
    #[error("cannot address the database for pg_restore")]
    Url(#[from] ClientError),
}

/// Programs that are not on the `PATH`.
pub fn missing_tools() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    TOOLS.into_iter().filter(|tool| !there(tool)).collect()
}

/// One command line, not run yet. Holds no secret in what it shows.
#[derive(Debug)]
pub struct Line {
    text: String,
    command: Command,
}

impl Line {
    /// `curl -LO`: the file lies in `dir` under the last part of its address.
    pub fn download(dir: &Path, url: &str) -> Self {
        Self::of(dir, "curl", &["-fsSLO", url])
    }

    /// `sha256sum -c` of the files that `sums` names.
    pub fn check(dir: &Path, sums: &str) -> Self {
        Self::of(dir, "sha256sum", &["-c", sums])
    }

    /// `tar --zstd -xf`: makes the directory `snapshot/`.
    pub fn extract(dir: &Path, archive: &str) -> Self {
        Self::of(dir, "tar", &["--zstd", "-xf", archive])
    }

    /// `rm`: an archive that was extracted takes much disk.
    pub fn remove(dir: &Path, file: &str) -> Self {
        Self::of(dir, "rm", &[file])
    }

    /// `pg_restore -jN` of the directory `snapshot/` into an empty database.
    ///
    /// # Errors
    /// [`StockError::Url`] when the URL is not one of a PostgreSQL database.
    pub fn restore(dir: &Path, pg_restore: &Path, database_url: &str, jobs: usize) -> Result<Self, StockError> {
        let mut command = client::command(pg_restore, database_url)?;
        // A Ctrl-C is ours to handle: to the program it would look like a snapshot that cannot be restored.
        command.arg(format!("-j{jobs}")).arg("snapshot/").current_dir(dir).process_group(0);
        Ok(Self { text: format!("pg_restore -j{jobs} -d $DATABASE_URL snapshot/"), command })
    }

    fn of(dir: &Path, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).kill_on_drop(true).process_group(0);
        Self { text: format!("{program} {}", arguments.join(" ")), command }
    }

    /// As a user would type it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Runs it to its end and says how many seconds it took. It is killed if this is dropped.
    ///
    /// # Errors
    /// [`StockError`].
    pub async fn run(mut self) -> Result<f64, StockError> {
        let begun = Instant::now();
        let done = self.command.stdin(Stdio::null()).output().await;
        let done = done.map_err(|source| StockError::Start { line: self.text.clone(), source })?;
        if done.status.success() {
            return Ok(begun.elapsed().as_secs_f64());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().chars().rev().take(2_000).collect::<Vec<_>>();
        Err(StockError::Failed { line: self.text, status: done.status, said: said.into_iter().rev().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_not_what_its_checksum_says_fails_the_line() {
        let dir = std::env::temp_dir().join(format!("snapshots-stock-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&dir).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  archive\n";
        std::fs::write(dir.join("sums"), empty).unwrap();
        std::fs::write(dir.join("archive"), "").unwrap();
        assert!(Line::check(&dir, "sums").run().await.is_ok());
        std::fs::write(dir.join("archive"), "x").unwrap();
        let failed = Line::check(&dir, "sums").run().await.unwrap_err();
        assert!(matches!(&failed, StockError::Failed { line, .. } if line == "sha256sum -c sums"), "{failed}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_password_of_a_database_is_not_in_the_line() {
        let line = Line::restore(Path::new("/"), Path::new("/bin/pg_restore"), "postgres://a:secret@h/d", 8).unwrap();
        assert_eq!(line.text(), "pg_restore -j8 -d $DATABASE_URL snapshot/");
    }
}
