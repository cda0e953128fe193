//! Files that tests read or run.
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use workers::embedded::discover;

/// The recordings beside the checkout, or nothing where they are not there; in CI their absence is a failure.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let data = repository.parent().unwrap().join("shared/data");
    if data.is_dir() {
        return Some(data);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", data.display());
    println!("skipped: {} is missing", data.display());
    None
}

/// Directory of the PostgreSQL programs.
pub(crate) fn pg_bin() -> PathBuf {
    let named = std::env::var_os("SNAPSHOTS_PG_BIN").map(PathBuf::from);
    discover::find(named.as_deref(), Path::new("")).unwrap().dir
}

/// The service's binary, built beside this test binary.
pub(crate) fn snapshots_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().unwrap().parent().unwrap().join("snapshots");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p workers` first", binary.display());
    binary
}

/// Loads a `.sql` or `.sql.gz` file with stock `psql`, stopping at the first error.
pub(crate) async fn psql_file(url: &str, path: &Path) {
    let mut command = Command::new(pg_bin().join("psql"));
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]);
    let gunzip = path.extension().is_some_and(|extension| extension == "gz").then(|| {
        let mut gunzip = std::process::Command::new("gzip");
        gunzip.arg("-dc").arg(path).stdout(Stdio::piped()).spawn().unwrap()
    });
    let gunzip = match gunzip {
        Some(mut child) => {
            command.stdin(child.stdout.take().unwrap());
            Some(child)
        }
        None => {
            command.stdin(std::fs::File::open(path).unwrap());
            None
        }
    };
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().await.unwrap();
    assert!(output.status.success(), "psql < {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    if let Some(mut child) = gunzip {
        assert!(child.wait().unwrap().success(), "gzip -dc {}", path.display());
    }
}
