//! The files of a private database cluster: made once by `initdb`, configured before each start.
//!
//! It starts no server. Invariant: a directory named `data` is a whole cluster: `initdb` works beside it and the
//! result is renamed, so a kill in the middle leaves nothing that looks like one.
use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::discover::PgBin;
use super::postgres::{Durability, PostgresError, PostgresOptions};

/// Port number that names the socket file; no TCP port is opened.
pub(super) const PORT: u16 = 5432;

/// Longest socket path that every supported system takes, in bytes (`sun_path` less its terminator; Linux 108,
/// macOS 104).
const SOCKET_PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Our settings file, included by `postgresql.conf` and written anew before each start; `ALTER SYSTEM` still wins.
const CONF: &str = "snapshots.conf";

/// Runs `initdb` unless the cluster exists.
pub(super) async fn init(bin: &PgBin, account: &Account, options: &PostgresOptions) -> Result<(), PostgresError> {
    let data = options.data();
    if data.join("PG_VERSION").is_file() {
        return check_owner(&data, account);
    }
    let fresh = options.dir.join("data.new");
    remove(&fresh)?;
    let mut command = account.command(&bin.program("initdb"));
    command.arg("-D").arg(&fresh).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]);
    if options.durability == Durability::Ephemeral {
        command.arg("--no-sync");
    }
    let output = command.output().await.map_err(|source| PostgresError::Run { program: bin.program("initdb"), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PostgresError::failed("initdb", &options.dir, said));
    }
    let conf = fresh.join("postgresql.conf");
    let io = |source| PostgresError::File { path: conf.clone(), source };
    let mut text = std::fs::read_to_string(&conf).map_err(io)?;
    let _ = write!(text, "\ninclude '{CONF}'\n");
    std::fs::write(&conf, text).map_err(io)?;
    std::fs::rename(&fresh, &data).map_err(|source| PostgresError::File { path: data.clone(), source })
}

fn remove(dir: &Path) -> Result<(), PostgresError> {
    match std::fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(PostgresError::File { path: dir.to_owned(), source }),
        _ => Ok(()),
    }
}

/// A cluster that another account made cannot be opened by ours; better said here than by the server's log.
fn check_owner(data: &Path, account: &Account) -> Result<(), PostgresError> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(data).map_err(|source| PostgresError::File { path: data.to_owned(), source })?.uid();
    let wanted = account.uid();
    if found == wanted {
        return Ok(());
    }
    Err(PostgresError::OtherOwner { data: data.to_owned(), found, wanted })
}

/// Writes the settings of the next start.
pub(super) async fn configure(
    bin: &PgBin,
    account: &Account,
    options: &PostgresOptions,
    socket_dir: &Path,
) -> Result<(), PostgresError> {
    let path = options.data().join(CONF);
    let io = |source| PostgresError::File { path: path.clone(), source };
    let compression = if takes(bin, account, options, "wal_compression=lz4").await { "lz4" } else { "pglz" };
    std::fs::write(&path, settings(options, socket_dir, compression)).map_err(io)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(io)?;
    account.give(&path).map_err(io)
}

/// Whether the server takes a setting that not every one was built with. Our settings of the last start play no part in that.
async fn takes(bin: &PgBin, account: &Account, options: &PostgresOptions, setting: &str) -> bool {
    let mut command = account.command(&bin.program("postgres"));
    command.arg("-D").arg(options.data()).args(["-c", "config_file=/dev/null", "-C", "port", "-c", setting]);
    command.output().await.is_ok_and(|output| output.status.success())
}

fn settings(options: &PostgresOptions, socket_dir: &Path, wal_compression: &str) -> String {
    let socket_dir = format!("\"{}\"", socket_dir.display());
    let mut all = vec![
        ("listen_addresses", ""),
        ("unix_socket_directories", &socket_dir),
        ("unix_socket_permissions", "0700"),
        ("port", "5432"),
        ("max_connections", "100"),
        ("shared_buffers", "192MB"),
        ("maintenance_work_mem", "128MB"),
        ("max_wal_size", "2GB"),
        ("checkpoint_timeout", "15min"),
        ("wal_compression", wal_compression),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_line_prefix", "%m [%p] %d "),
    ];
    let durability: &[(&str, &str)] = match options.durability {
        Durability::Durable => &[("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")],
        Durability::Ephemeral => &[("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")],
    };
    all.extend(durability);
    let mut text = "# written before each start; use `alter system` to change a setting\n".to_owned();
    let extra = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in all.into_iter().chain(extra) {
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
    text
}

/// Where the socket goes: beside the data, or where that path is too long for a socket a fresh directory of
/// a short name, which the caller deletes after the server has stopped.
pub(super) fn socket_dir(account: &Account, options: &PostgresOptions) -> Result<PathBuf, PostgresError> {
    let beside = options.dir.join("run");
    if fits_socket(&beside) {
        account.own(&beside)?;
        return Ok(beside);
    }
    let io = |source| PostgresError::File { path: PathBuf::from("/tmp"), source };
    let short = tempfile::Builder::new().prefix("snapshots-pg-").tempdir_in("/tmp").map_err(io)?.keep();
    account.own(&short)?;
    Ok(short)
}

/// Whether a socket in `dir` has a path short enough for the system.
pub(super) fn fits_socket(dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let name = format!("/.s.PGSQL.{PORT}");
    dir.as_os_str().as_bytes().len() + name.len() <= SOCKET_PATH_MAX
}

/// The connection URL that libpq's tools and sqlx both read: the socket directory rides in `host`, which overrides
/// the `localhost` that URL parsers want; the port is spelled out because both would else obey `PGPORT`.
pub(super) fn url(socket_dir: &Path, database: &str) -> String {
    format!("postgres://postgres@localhost:{PORT}/{}?host={}", percent(Path::new(database)), percent(socket_dir))
}

fn percent(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(*byte)),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_of_a_socket_directory_survive_the_url() {
        assert_eq!(
            url(Path::new("/tmp/a b+c%é"), "secondlayer"),
            "postgres://postgres@localhost:5432/secondlayer?host=/tmp/a%20b%2Bc%25%C3%A9"
        );
    }

    #[test]
    fn a_path_of_the_limit_fits_and_one_byte_more_does_not() {
        let name = "/.s.PGSQL.5432".len();
        let dir = |length: usize| PathBuf::from(format!("/{}", "d".repeat(length - 1)));
        assert!(fits_socket(&dir(SOCKET_PATH_MAX - name)));
        assert!(!fits_socket(&dir(SOCKET_PATH_MAX - name + 1)));
    }
}
