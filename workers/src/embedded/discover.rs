//! Finds the PostgreSQL programs of this machine: a server's to run one, or only `pg_dump` for a server elsewhere.
//!
//! It downloads nothing and starts nothing but `pg_config` and `… --version`. Invariant: what it returns holds the programs
//! that were asked for, of one major version; others may be missing.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs without which no cluster can be made or run.
const SERVER_PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// The program that reads a schema. It refuses a server newer than itself.
const CLIENT_PROGRAMS: [&str; 1] = ["pg_dump"];

/// Why no usable PostgreSQL was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// Nothing is installed where distributions put it.
    #[error(
        "no PostgreSQL server programs found (looked at pg_config, /usr/lib/postgresql, /usr/pgsql-*, Homebrew and PATH): \
         install them with `{install}`, point --pg-bin (SNAPSHOTS_PG_BIN) at their directory, or set DATABASE_URL"
    )]
    NotInstalled {
        /// The command that installs them here.
        install: &'static str,
    },
    /// There is no `pg_dump`, or none for so new a server.
    #[error(
        "no pg_dump for a server of PostgreSQL {server} found ({}): install postgresql-client-{server} or newer, \
         or point --pg-bin (SNAPSHOTS_PG_BIN) at its directory",
        newest.map_or("there is none".to_owned(), |newest| format!("the newest is version {newest}, and it refuses newer servers"))
    )]
    NoClient {
        /// Major version of the server.
        server: u32,
        /// That of the newest `pg_dump`.
        newest: Option<u32>,
    },
    /// The directory the user named lacks a program.
    #[error(
        "{} has no `{program}`: point --pg-bin (SNAPSHOTS_PG_BIN) at the directory of PostgreSQL's programs",
        dir.display()
    )]
    Incomplete {
        /// The directory the user named.
        dir: PathBuf,
        /// The first program that is missing.
        program: &'static str,
    },
    /// The data directory was made by another major version than every one installed.
    #[error(
        "{} was made by PostgreSQL {wanted}, but {} is version {found}: install PostgreSQL {wanted} or point --pg-bin at it, \
         or move the data with pg_upgrade, or start with an empty --data-dir",
        data.display(), bin.display()
    )]
    OtherVersion {
        /// The existing cluster.
        data: PathBuf,
        /// Major version that made it.
        wanted: u32,
        /// Best programs found.
        bin: PathBuf,
        /// Their major version.
        found: u32,
    },
    /// `… --version` failed or said something unknown.
    #[error("`{} --version` gave no version: the PostgreSQL installation is broken, reinstall it or name another with --pg-bin", .0.display())]
    NoVersion(PathBuf),
}

/// A directory of PostgreSQL programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgBin {
    /// The directory.
    pub dir: PathBuf,
    /// Major version, for example 15.
    pub major: u32,
}

impl PgBin {
    /// Path of one program; it need not exist for client tools.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Finds the programs for a cluster at `data`, which may not exist yet.
///
/// The order is: the directory the user named, then `pg_config --bindir`, `/usr/lib/postgresql/*/bin` (newest
/// first), `/usr/pgsql-*/bin`, Homebrew, `PATH`. An existing cluster takes the first of its own major version.
pub fn find(named: Option<&Path>, data: &Path) -> Result<PgBin, DiscoverError> {
    let candidates = match named {
        Some(dir) => vec![complete(dir, &SERVER_PROGRAMS)?],
        None => installed(&SERVER_PROGRAMS),
    };
    let wanted = cluster_major(data);
    let mut first = None;
    for dir in candidates {
        let bin = PgBin { major: version(&dir.join("postgres"))?, dir };
        if wanted.is_none_or(|wanted| wanted == bin.major) {
            return Ok(bin);
        }
        first.get_or_insert(bin);
    }
    match (first, wanted) {
        (Some(bin), Some(wanted)) => {
            Err(DiscoverError::OtherVersion { data: data.to_owned(), wanted, bin: bin.dir, found: bin.major })
        }
        _ => Err(DiscoverError::NotInstalled { install: install_command() }),
    }
}

/// Finds the client programs for a server of major version `server` that runs elsewhere, in the same order as [`find`].
///
/// # Errors
/// No `pg_dump`, or none that is new enough.
pub fn find_client(named: Option<&Path>, server: u32) -> Result<PgBin, DiscoverError> {
    let candidates = match named {
        Some(dir) => vec![complete(dir, &CLIENT_PROGRAMS)?],
        None => installed(&CLIENT_PROGRAMS),
    };
    let mut newest = None;
    for dir in candidates {
        let major = version(&dir.join("pg_dump"))?;
        if major >= server {
            return Ok(PgBin { major, dir });
        }
        newest = newest.max(Some(major));
    }
    Err(DiscoverError::NoClient { server, newest })
}

fn complete(dir: &Path, programs: &[&'static str]) -> Result<PathBuf, DiscoverError> {
    match programs.iter().find(|program| !dir.join(program).is_file()) {
        None => Ok(dir.to_owned()),
        Some(program) => Err(DiscoverError::Incomplete { dir: dir.to_owned(), program }),
    }
}

fn installed(programs: &[&'static str]) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    dirs.extend(pg_config_bindir());
    dirs.extend(versioned(Path::new("/usr/lib/postgresql"), "", "bin"));
    dirs.extend(versioned(Path::new("/usr"), "pgsql-", "bin"));
    for homebrew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        dirs.extend(versioned(Path::new(homebrew), "postgresql@", "bin"));
        dirs.push(Path::new(homebrew).join("postgresql/bin"));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path));
    }
    dirs.retain(|dir| complete(dir, programs).is_ok());
    dirs
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

/// `<parent>/<prefix><number>/<leaf>`, highest number first.
fn versioned(parent: &Path, prefix: &str, leaf: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path().join(leaf)))
        })
        .collect();
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.into_iter().map(|(_, path)| path).collect()
}

fn version(program: &Path) -> Result<u32, DiscoverError> {
    let broken = || DiscoverError::NoVersion(program.to_owned());
    let output = Command::new(program).arg("--version").output().map_err(|_| broken())?;
    parse_version(&String::from_utf8_lossy(&output.stdout)).ok_or_else(broken)
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)` or `… 18beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL)")?.1.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

fn cluster_major(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

fn install_command() -> &'static str {
    let has = |program: &str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(OsStr::new(program)).is_file()))
    };
    if cfg!(target_os = "macos") {
        return "brew install postgresql@17";
    }
    [
        ("apt-get", "sudo apt-get install -y postgresql"),
        ("dnf", "sudo dnf install -y postgresql-server postgresql-contrib"),
        ("yum", "sudo yum install -y postgresql-server postgresql-contrib"),
        ("apk", "sudo apk add postgresql postgresql-contrib"),
        ("pacman", "sudo pacman -S postgresql"),
        ("zypper", "sudo zypper install -y postgresql-server postgresql-contrib"),
    ]
    .into_iter()
    .find(|(program, _)| has(program))
    .map_or("sudo apt-get install -y postgresql", |(_, install)| install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_releases_and_betas() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_version("something else 15"), None);
    }

    #[test]
    fn a_named_directory_without_the_programs_is_refused_with_the_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(Some(dir.path()), Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("has no `initdb`") && error.contains("--pg-bin"), "{error}");
    }

    #[test]
    fn a_client_alone_will_do_unless_the_server_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let missing = find_client(Some(dir.path()), 15).unwrap_err().to_string();
        assert!(missing.contains("has no `pg_dump`"), "{missing}");
        let program = dir.path().join("pg_dump");
        std::fs::write(&program, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 16.2'\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let found = find_client(Some(dir.path()), 16).unwrap();
        assert_eq!((found.major, found.program("pg_dump")), (16, program));
        let old = find_client(Some(dir.path()), 17).unwrap_err().to_string();
        assert!(old.contains("the newest is version 16") && old.contains("postgresql-client-17"), "{old}");
    }

    #[test]
    fn numbered_directories_come_newest_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-9", "pgsql-17", "pgsql-15", "other"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names = versioned(parent.path(), "pgsql-", "bin");
        let expected = ["pgsql-17/bin", "pgsql-15/bin", "pgsql-9/bin"].map(|name| parent.path().join(name));
        assert_eq!(names, expected);
    }
}
