//! The servers behind a service: a private Postgres and an in-process bucket, or real ones where the environment names them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use snapshot::cut::ReadThread;
use snapshot::encrypt::Recipients;
use snapshot::sign::Keyring;
use snapshot::store::{self, Store, StoreConfig, StoreError};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use workflows::services::{FullProfile, Services, Settings, Staging};

use super::scratch::{self, Known};
use crate::config::{Role, Servers, ServiceArgs};
use crate::embedded::data_dir::{DataDir, DataDirError};
use crate::embedded::discover::{self, DiscoverError, PgBin};
use crate::embedded::lock::LockError;
use crate::embedded::postgres::{Durability, EmbeddedPostgres, PostgresError, PostgresOptions};
use crate::embedded::s3::EmbeddedS3;
use crate::exit::{Exit, Failure};
use crate::full_profile::FullServer;

/// Bucket of the embedded server.
const BUCKET: &str = "snapshots";
/// Bucket of the `full` profile on the embedded server: no route of the API leads there.
const FULL_BUCKET: &str = "snapshots-full";
/// Connections to each database: two cutting steps, the verifier, the API, and room.
const CONNECTIONS: u32 = 16;
/// How long a database may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether data stays after the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In the data directory.
    Lasting,
    /// In a directory that is gone afterwards, even after SIGKILL.
    Nothing,
}

const CANNOT_CONNECT: &str = "cannot connect to the indexed database (DATABASE_URL)";

/// The servers, and the directory they live in.
pub struct Backends {
    dir: DataDir,
    postgres: Option<EmbeddedPostgres>,
    s3: Option<EmbeddedS3>,
    /// None where nothing here needs a program of PostgreSQL: a server elsewhere, and no worker.
    pg_bin: Option<PgBin>,
    /// Major version of the indexed database's server; 0 where nobody here needs to know it.
    major: u32,
    durability: Durability,
    database_url: String,
    control_database_url: String,
    store: StoreConfig,
    full: Option<(StoreConfig, Recipients)>,
    staging: Option<Staging>,
}

impl Backends {
    /// Opens the directory and starts what is not given.
    pub(super) async fn open(args: &ServiceArgs, servers: &Servers, keep: Keep) -> anyhow::Result<Self> {
        let dir = match keep {
            Keep::Lasting => DataDir::open(&args.dir.path()),
            Keep::Nothing => DataDir::ephemeral(),
        }
        .map_err(no_directory)?;
        let durability = if keep == Keep::Lasting { Durability::Durable } else { Durability::Ephemeral };
        let named = args.source.pg_bin.as_deref();
        let (pg_bin, major) = match &servers.database_url {
            None => {
                let bin = discover::find(named, &dir.postgres_dir()).map_err(no_programs)?;
                let major = bin.major;
                (Some(bin), major)
            }
            Some(url) if args.has(Role::Worker) => {
                let server = server_major(url).await.context(CANNOT_CONNECT)?;
                (Some(discover::find_client(named, server).map_err(no_client)?), server)
            }
            Some(_) => (None, 0),
        };
        let postgres = match &servers.database_url {
            Some(_) => None,
            None => Some(start_postgres(&dir, named, durability).await?),
        };
        let s3 = match &servers.store {
            Some(_) => None,
            None => match EmbeddedS3::start(&dir.s3_dir(), BUCKET, durability).await {
                Ok(s3) => Some(s3),
                Err(error) => {
                    stop_postgres(postgres).await;
                    return Err(error).context("cannot start the embedded bucket");
                }
            },
        };
        let url = || postgres.as_ref().map(|postgres| postgres.url().to_owned()).unwrap_or_default();
        let database_url = servers.database_url.clone().unwrap_or_else(url);
        let control_database_url = servers.control_database_url.clone().unwrap_or_else(|| database_url.clone());
        let embedded = || s3.as_ref().map(store_config);
        let Some(store) = servers.store.clone().or_else(embedded) else { anyhow::bail!("no bucket") };
        let full = match &servers.full {
            Some(full) => Some((full_store(full, s3.as_ref(), &store)?, full.recipients.clone())),
            None => None,
        };
        let staging = servers.staging.clone();
        Ok(Self { dir, pg_bin, major, durability, database_url, control_database_url, store, full, staging, postgres, s3 })
    }

    /// Connects, migrates, and checks that everything answers.
    pub(super) async fn services(
        &self,
        (args, servers): (&ServiceArgs, &Servers),
        settings: Settings,
        signing: Option<Keyring>,
    ) -> anyhow::Result<Services> {
        let (pg_dump, pg_restore) = (self.pg_program("pg_dump"), self.pg_program("pg_restore"));
        let known = Known { dir: self.dir.path(), major: self.major, pg_restore: &pg_restore, durability: self.durability };
        let scratch = scratch::places(args, servers, &known)?;
        let indexed = connect(&self.database_url).await.context(CANNOT_CONNECT)?;
        let cannot = "cannot connect to the control database (CONTROL_DATABASE_URL, by default DATABASE_URL)";
        if self.control_database_url != self.database_url {
            probe(&engine::control_pool_options(&self.control_database_url)?).await.context(cannot)?;
        }
        let control = engine::control_pool(&self.control_database_url, CONNECTIONS).await.context(cannot)?;
        chain::migrate(&indexed).await.context("cannot prepare the indexed database")?;
        engine::migrate(&control).await.context("cannot prepare the control database")?;
        let store = Store::new(&self.store);
        store.check().await.map_err(|error| bucket_failure(&self.store, error))?;
        let full = match &self.full {
            Some((config, recipients)) => Some(full_profile(config, recipients).await?),
            None => None,
        };
        let runs = workflows::runs(control.clone())?;
        let indexed_url = self.database_url.clone();
        let reading = ReadThread::start(&indexed).context("cannot start a thread that reads rows")?;
        Ok(Services {
            indexed,
            reading,
            indexed_url,
            control,
            runs,
            store,
            full,
            staging: self.staging.clone(),
            pg_dump,
            pg_restore,
            scratch,
            signing,
            settings,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn pg_program(&self, name: &str) -> PathBuf {
        self.pg_bin.as_ref().map_or_else(|| PathBuf::from(name), |bin| bin.program(name))
    }

    /// Stops what was started.
    pub(super) async fn close(self) {
        if let Some(s3) = self.s3 {
            s3.stop().await;
        }
        stop_postgres(self.postgres).await;
        if let Err(error) = self.dir.close() {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "the data directory was not closed");
        }
    }
}

/// The bucket of the `full` profile: the one that is named, or another one on the embedded server.
fn full_store(full: &FullServer, s3: Option<&EmbeddedS3>, public: &StoreConfig) -> anyhow::Result<StoreConfig> {
    if let Some(store) = &full.store {
        return Ok(store.clone());
    }
    if let Some(s3) = s3 {
        s3.create_bucket(FULL_BUCKET).context("cannot make the embedded bucket of the full profile")?;
    }
    Ok(StoreConfig { bucket: FULL_BUCKET.into(), ..public.clone() })
}

async fn full_profile(config: &StoreConfig, recipients: &Recipients) -> anyhow::Result<FullProfile> {
    let store = Store::new(config);
    store.check().await.map_err(|error| {
        bucket_failure(config, error)
            .hint("check SNAPSHOTS_FULL_BUCKET: it is at the same server and read with the same AWS_* variables as S3_BUCKET")
    })?;
    Ok(FullProfile { store, recipients: recipients.clone() })
}

async fn start_postgres(dir: &DataDir, pg_bin: Option<&Path>, durability: Durability) -> anyhow::Result<EmbeddedPostgres> {
    let mut options = PostgresOptions::new(dir.postgres_dir());
    options.pg_bin = pg_bin.map(Path::to_owned);
    options.durability = durability;
    Ok(EmbeddedPostgres::start(options).await.map_err(no_postgres)?)
}

fn no_directory(error: DataDirError) -> Failure {
    let (exit, hint) = match &error {
        DataDirError::Lock(LockError::InUse { .. }) => {
            (Exit::Conflict, "`snapshots list` and the others use that service already")
        }
        DataDirError::Lock(LockError::Io { source, .. }) | DataDirError::Unusable { source, .. } => {
            (of_file(source), "--data-dir (SNAPSHOTS_DATA_DIR) must be a directory that this user can write")
        }
    };
    Failure::caused(exit, "cannot open the data directory", error).hint(hint)
}

fn no_programs(error: DiscoverError) -> Failure {
    let exit = match error {
        DiscoverError::NotInstalled { .. } | DiscoverError::Incomplete { .. } | DiscoverError::NoClient { .. } => Exit::NotFound,
        DiscoverError::OtherVersion { .. } => Exit::Refused,
        DiscoverError::NoVersion(_) => Exit::Failed,
    };
    Failure::caused(exit, "cannot use PostgreSQL's programs", error).hint("set DATABASE_URL to use a server of your own")
}

fn no_client(error: DiscoverError) -> Failure {
    no_programs(error).hint("a worker reads the schema with pg_dump; a process without it can still serve: --role api")
}

fn no_postgres(error: PostgresError) -> Failure {
    let exit = match &error {
        PostgresError::Account(_) | PostgresError::OtherOwner { .. } => Exit::Auth,
        PostgresError::Discover(_) => Exit::NotFound,
        PostgresError::File { source, .. } | PostgresError::Run { source, .. } => of_file(source),
        _ => Exit::Failed,
    };
    Failure::caused(exit, "cannot start a private PostgreSQL", error).hint("or set DATABASE_URL to use a server of your own")
}

fn of_file(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Exit::Auth,
        _ => Exit::Failed,
    }
}

async fn stop_postgres(postgres: Option<EmbeddedPostgres>) {
    let Some(postgres) = postgres else { return };
    if let Err(error) = postgres.stop().await {
        tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "the private PostgreSQL did not stop");
    }
}

fn store_config(s3: &EmbeddedS3) -> StoreConfig {
    StoreConfig {
        endpoint: Some(s3.endpoint()),
        bucket: s3.bucket().to_owned(),
        region: s3.region().to_owned(),
        access_key: s3.access_key().to_owned(),
        secret_key: s3.secret_key().to_owned(),
        patience: store::PATIENCE,
    }
}

/// A pool on an indexed database.
///
/// # Errors
/// A bad URL, or a database that does not answer within ten seconds.
pub async fn connect(url: &str) -> sqlx::Result<PgPool> {
    let options: PgConnectOptions = url.parse()?;
    probe(&options).await?;
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .connect_with(options.application_name("snapshots"))
        .await
}

/// Major version of a server.
async fn server_major(url: &str) -> sqlx::Result<u32> {
    let mut connection = first_connection(&url.parse()?).await?;
    let number: i32 =
        sqlx::query_scalar("select current_setting('server_version_num')::int / 10000").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(number.unsigned_abs())
}

/// One connection first: a pool waits for a server that is not there, and then cannot say why it was not.
async fn probe(options: &PgConnectOptions) -> sqlx::Result<()> {
    first_connection(options).await?.close().await
}

async fn first_connection(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within ten seconds"));
    tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await.map_err(late)?
}

fn bucket_failure(config: &StoreConfig, error: StoreError) -> Failure {
    let exit = match &error {
        StoreError::Refused { code, .. } if code == "NoSuchBucket" => Exit::NotFound,
        StoreError::Refused { .. } => Exit::Auth,
        _ => Exit::Unreachable,
    };
    let endpoint = config.endpoint.as_deref().unwrap_or("AWS");
    let failure = Failure::caused(exit, format!("the bucket {} at {endpoint} cannot be used", config.bucket), error);
    failure.hint("check S3_ENDPOINT, S3_BUCKET and the AWS_* variables")
}
