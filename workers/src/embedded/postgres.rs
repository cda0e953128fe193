//! A private PostgreSQL server for people who have none set up.
//!
//! Not a manager of databases of others: `DATABASE_URL` bypasses all of this. Invariant: the server listens on a
//! unix socket in a directory closed to other users, never on TCP, so it meets no port of another server; and it
//! outlives a crash of ours, to be adopted by the next start.
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::account::Account;
use super::cluster;
use super::discover::{self, PgBin};
pub use super::postgres_error::PostgresError;

/// Database that holds the chain and our own schema.
pub const DATABASE: &str = "secondlayer";

/// How long a server may replay its log after a crash before we give up on it.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Whether the cluster must survive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every commit is on disk before it is answered.
    Durable,
    /// The data is deleted at the end anyway: no fsync.
    Ephemeral,
}

/// What a private server needs to know.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Directory of the cluster, its socket and its log; made if missing, closed to other users.
    pub dir: PathBuf,
    /// Directory of the PostgreSQL programs (`--pg-bin`); found by looking around when absent.
    pub pg_bin: Option<PathBuf>,
    /// Whether to wait for the disk.
    pub durability: Durability,
    /// Further settings for `postgresql.conf`, which win over ours.
    pub settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// A durable cluster in `dir` with the programs found on this machine.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), pg_bin: None, durability: Durability::Durable, settings: Vec::new() }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }
}

/// A running private server. Dropping it leaves the server running (as a crash would); [`stop`](Self::stop) ends it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    bin: PgBin,
    account: Account,
    options: PostgresOptions,
    socket_dir: PathBuf,
    url: String,
    adopted: bool,
}

impl EmbeddedPostgres {
    /// Makes the cluster if there is none, starts it unless a crash of ours left it running, waits until it answers,
    /// and makes the database `secondlayer` if it is missing.
    ///
    /// The caller holds the lock of the data directory.
    pub async fn start(options: PostgresOptions) -> Result<Self, PostgresError> {
        let bin = discover::find(options.pg_bin.as_deref(), &options.data())?;
        let account = Account::choose()?;
        account.own(&options.dir)?;
        account.check_can_enter(&options.dir).await?;
        cluster::init(&bin, &account, &options).await?;
        let running = running_socket_dir(&bin, &account, &options).await?;
        let adopted = running.is_some();
        let socket_dir = match running {
            Some(socket_dir) => socket_dir,
            None => launch(&bin, &account, &options).await?,
        };
        let url = cluster::url(&socket_dir, DATABASE);
        let server = Self { bin, account, options, socket_dir, url, adopted };
        server.create_database(DATABASE).await?;
        Ok(server)
    }

    /// URL of the database `secondlayer`, for libpq's tools and sqlx alike. Holds no secret.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// URL of another database of the same server.
    pub fn url_of(&self, database: &str) -> String {
        cluster::url(&self.socket_dir, database)
    }

    /// Directory of the server's programs, and of `psql`, `pg_dump` and `pg_restore` where they are installed.
    pub fn bin_dir(&self) -> &Path {
        &self.bin.dir
    }

    /// Major version of the server, for example 15.
    pub fn major(&self) -> u32 {
        self.bin.major
    }

    /// Directory of the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Directory of the cluster's files.
    pub fn data_dir(&self) -> PathBuf {
        self.options.data()
    }

    /// Whether the server was left running by an earlier process and taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Makes a database unless it exists; `name` is taken literally.
    pub async fn create_database(&self, name: &str) -> Result<(), PostgresError> {
        let unanswered = |source| PostgresError::Unanswered { dir: self.options.dir.clone(), source };
        let mut connection = connect(&self.url_of("postgres")).await.map_err(unanswered)?;
        if !database_exists(&mut connection, name).await.map_err(unanswered)? {
            create_database(&mut connection, name).await.map_err(unanswered)?;
        }
        connection.close().await.map_err(unanswered)
    }

    /// Ends the server: open transactions are rolled back, the data is flushed, the socket is gone.
    pub async fn stop(self) -> Result<(), PostgresError> {
        let data = self.options.data();
        pg_ctl(&self.bin, &self.account, &self.options, "pg_ctl stop", |command| {
            command.arg("stop").arg("-D").arg(&data).args(["-m", "fast", "-w", "-t", "60"]);
        })
        .await?;
        remove_short_socket_dir(&self.options, &self.socket_dir);
        Ok(())
    }
}

/// A short socket directory lives outside of the data directory and so must be taken away; one beside the data stays.
fn remove_short_socket_dir(options: &PostgresOptions, socket_dir: &Path) {
    if !socket_dir.starts_with(&options.dir)
        && let Err(error) = std::fs::remove_dir_all(socket_dir)
    {
        tracing::warn!(path = %socket_dir.display(), %error, "socket directory not removed");
    }
}

/// The socket directory of a server that runs on this cluster already, once it answers.
async fn running_socket_dir(bin: &PgBin, account: &Account, options: &PostgresOptions) -> Result<Option<PathBuf>, PostgresError> {
    let program = bin.program("pg_ctl");
    let status = account
        .command(&program)
        .arg("status")
        .arg("-D")
        .arg(options.data())
        .output()
        .await
        .map_err(|source| PostgresError::Run { program, source })?;
    if !status.status.success() {
        return Ok(None);
    }
    let Some(socket_dir) = recorded_socket_dir(&options.data()) else { return Ok(None) };
    let url = cluster::url(&socket_dir, "postgres");
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        match connect(&url).await {
            Ok(connection) => {
                drop(connection);
                return Ok(Some(socket_dir));
            }
            Err(source) if Instant::now() > deadline => {
                return Err(PostgresError::Unanswered { dir: options.dir.clone(), source });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Line 5 of `postmaster.pid` (PostgreSQL documentation, "Database File Layout").
fn recorded_socket_dir(data: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let line = text.lines().nth(4)?.trim();
    (!line.is_empty()).then(|| PathBuf::from(line))
}

async fn launch(bin: &PgBin, account: &Account, options: &PostgresOptions) -> Result<PathBuf, PostgresError> {
    let socket_dir = cluster::socket_dir(account, options)?;
    cluster::configure(bin, account, options, &socket_dir).await?;
    let (data, log) = (options.data(), options.log());
    // The log of this start alone, so that a failure quotes nothing old.
    let _ = std::fs::rename(&log, log.with_extension("log.1"));
    let started = pg_ctl(bin, account, options, "pg_ctl start", |command| {
        let seconds = START_DEADLINE.as_secs().to_string();
        command.arg("start").arg("-D").arg(&data).arg("-l").arg(&log).args(["-w", "-t", &seconds]);
    })
    .await;
    match started {
        Ok(()) => Ok(socket_dir),
        Err(error) => {
            remove_short_socket_dir(options, &socket_dir);
            Err(error)
        }
    }
}

async fn pg_ctl(
    bin: &PgBin,
    account: &Account,
    options: &PostgresOptions,
    name: &'static str,
    arguments: impl FnOnce(&mut tokio::process::Command),
) -> Result<(), PostgresError> {
    let program = bin.program("pg_ctl");
    let mut command = account.command(&program);
    arguments(&mut command);
    let output = command.output().await.map_err(|source| PostgresError::Run { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let log = std::fs::read(options.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    for line in &lines[lines.len().saturating_sub(10)..] {
        said.push_str("\n  ");
        said.push_str(line);
    }
    Err(PostgresError::failed(name, &options.dir, said))
}

async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    PgConnection::connect(url).await
}

async fn database_exists(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)").bind(name).fetch_one(connection).await
}

async fn create_database(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
