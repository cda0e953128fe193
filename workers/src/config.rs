//! Settings: flags for what may be seen by anybody who lists processes, environment variables for the rest. Read once.

mod proving;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use snapshot::columns::ColumnRules;
use snapshot::store::{PATIENCE, StoreConfig};
use workflows::notify::Receivers;
use workflows::services::Staging;

use crate::exit::{Exit, Failure};
use crate::full_profile::{self, FullServer};
use crate::receivers;
use crate::signing::Signing;
use crate::staging;

pub use proving::{ArchiveChoice, DrillArgs, DrillChoice};

/// Where the service keeps its own data.
#[derive(Debug, Clone, Args)]
pub struct DataDirArgs {
    /// Directory of the service: embedded servers live in it, and commands find the service through it.
    #[arg(long, env = "SNAPSHOTS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataDirArgs {
    /// The directory given, or the user's own; root's lies where an unprivileged Postgres can reach it.
    pub fn path(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| {
            if nix::unistd::geteuid().is_root() {
                return PathBuf::from("/var/lib/secondlayer-snapshots");
            }
            let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
            let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
            base.unwrap_or_else(std::env::temp_dir).join("secondlayer-snapshots")
        })
    }
}

/// What a process does. Several processes share one database and one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers HTTP.
    Api,
    /// Runs the steps of workflows, all but deliveries.
    Worker,
    /// Starts runs when their schedules say so.
    Scheduler,
    /// Runs the steps that wait for other people's servers (queue `deliver`).
    Deliver,
    /// Takes blocks from a stacks-node's event observer, on the same address as the API.
    Ingest,
}

/// Settings of a service.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    #[command(flatten)]
    /// Its directory.
    pub dir: DataDirArgs,
    /// Address of the API. Beyond loopback whatever changes something needs a key (`snapshots api-key create`), and the ingest role
    /// is refused. Port 0 takes a free one.
    #[arg(long, env = "SNAPSHOTS_LISTEN", default_value = "127.0.0.1:3900", value_name = "ADDR")]
    pub listen: SocketAddr,
    #[command(flatten)]
    /// What is snapshotted.
    pub source: SourceArgs,
    /// Roles of this process, once each or separated by commas; all by default. Processes that share the databases and the
    /// bucket share the work, however many have a role.
    #[arg(long = "role", env = "SNAPSHOTS_ROLE", value_enum, value_delimiter = ',')]
    pub roles: Vec<Role>,
    /// How many steps of a queue this process claims at once at most, as far as it has slots free: io=64 for thousands of short
    /// steps. One by default, which spreads long steps best over machines. Several are separated by commas.
    #[arg(long = "claim", env = "SNAPSHOTS_CLAIM", value_name = "QUEUE=STEPS", value_delimiter = ',', value_parser = claim_setting)]
    pub claims: Vec<(engine::Queue, usize)>,
    #[command(flatten)]
    /// How long snapshots live.
    pub life: LifeArgs,
    /// Seconds between two looks at the figures for monitoring that are read from the databases; one process of all takes them.
    #[arg(long, env = "SNAPSHOTS_FIGURES_SECONDS", default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    pub figures_seconds: u64,
    /// Which archives are stored. The chunks of each snapshot always are; an archive that is not stored is put together from them by
    /// this service, byte for byte the same, for whoever asks: with a bucket of your own, at PUBLIC_SERVICE_URL and not in the bucket.
    #[arg(long, env = "SNAPSHOTS_ARCHIVE", value_enum, default_value_t = ArchiveChoice::Every)]
    pub archive: ArchiveChoice,
    #[command(flatten)]
    /// How snapshots are proved.
    pub drill: DrillArgs,
    #[command(flatten)]
    /// What runs by itself.
    pub schedules: ScheduleArgs,
}

fn claim_setting(text: &str) -> Result<(engine::Queue, usize), String> {
    let (name, steps) = text.split_once('=').ok_or("write QUEUE=STEPS")?;
    let known = || engine::Queue::ALL.iter().map(|queue| queue.as_str()).collect::<Vec<_>>().join(", ");
    let queue = engine::Queue::ALL.iter().find(|queue| queue.as_str() == name);
    let queue = queue.ok_or_else(|| format!("there is no such queue; known are: {}", known()))?;
    match steps.parse() {
        Ok(steps @ 1..=1000) => Ok((*queue, steps)),
        _ => Err("a process claims 1 to 1000 steps at once".into()),
    }
}

/// What runs by itself. A schedule that an operator has changed through the API or `snapshots schedule` stays as it is.
#[derive(Debug, Clone, Default, Args)]
pub struct ScheduleArgs {
    /// Pause every schedule that the program comes with.
    #[arg(long, env = "SNAPSHOTS_NO_SCHEDULES")]
    pub no_schedules: bool,
    /// Give a schedule another time (five fields as in crontab, UTC) or switch it off: nightly-snapshot='30 3 * * *',
    /// nightly-snapshot=off. Several are separated by semicolons.
    #[arg(long = "schedule", env = "SNAPSHOTS_SCHEDULE", value_name = "NAME=CRON", value_delimiter = ';', value_parser = schedule_setting)]
    pub schedules: Vec<ScheduleSetting>,
}

/// What is set for one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleSetting {
    /// Its name.
    pub name: String,
    /// When it fires; `None`: never.
    pub cron: Option<String>,
}

fn schedule_setting(text: &str) -> Result<ScheduleSetting, String> {
    let (name, cron) = text.split_once('=').ok_or("write NAME=CRON or NAME=off")?;
    let known: Vec<String> = workflows::schedules::defaults().into_iter().map(|default| default.name).collect();
    if !known.iter().any(|known| known == name) {
        return Err(format!("there is no such schedule; known are: {}", known.join(", ")));
    }
    let cron = (cron != "off").then(|| cron.to_owned());
    if let Some(cron) = &cron {
        engine::Cron::parse(cron, "UTC").map_err(|error| error.to_string())?;
    }
    Ok(ScheduleSetting { name: name.to_owned(), cron })
}

/// What to snapshot, and how.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// Network; by default the only one that index_progress knows.
    #[arg(long, env = "SNAPSHOTS_NETWORK", value_parser = network_name)]
    pub network: Option<String>,
    /// How many Bitcoin blocks deep the highest block of a snapshot lies.
    #[arg(long, env = "SNAPSHOTS_CONFIRMATIONS", default_value_t = 6)]
    pub confirmations: u32,
    /// Columns that this program does not know and that shall be published, as table.column.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN")]
    pub include_columns: Vec<String>,
    /// Columns that shall not be published, as table.column.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN")]
    pub omit_columns: Vec<String>,
    /// How many days a snapshot may be believed to be the newest. Readers refuse a `latest` that is older: somebody holds them
    /// back, or nothing was published for so long.
    #[arg(long, env = "SNAPSHOTS_LATEST_VALID_DAYS", default_value_t = 14, value_name = "DAYS")]
    pub latest_valid_days: u32,
    /// Directory with postgres, pg_dump and pg_restore; by default the newest installed.
    #[arg(long, env = "SNAPSHOTS_PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}

/// How long snapshots live, and when the newest is too old.
#[derive(Debug, Clone, Args)]
pub struct LifeArgs {
    /// Days whose newest snapshot is kept.
    #[arg(long, env = "SNAPSHOTS_KEEP_DAILY", default_value_t = 7, value_name = "DAYS")]
    pub keep_daily: usize,
    /// Weeks whose newest snapshot is kept.
    #[arg(long, env = "SNAPSHOTS_KEEP_WEEKLY", default_value_t = 4, value_name = "WEEKS")]
    pub keep_weekly: usize,
    /// Months whose newest snapshot is kept.
    #[arg(long, env = "SNAPSHOTS_KEEP_MONTHLY", default_value_t = 6, value_name = "MONTHS")]
    pub keep_monthly: usize,
    /// How many hours what nobody needs any more stays in the bucket: longer than the longest download.
    #[arg(long, env = "SNAPSHOTS_PRUNE_GRACE_HOURS", default_value_t = 168, value_name = "HOURS")]
    pub prune_grace_hours: u32,
    /// Age in hours from which the newest snapshot is called lagging.
    #[arg(long, env = "SNAPSHOTS_LAGGING_HOURS", default_value_t = 26, value_name = "HOURS")]
    pub lagging_hours: u32,
    /// Age in hours from which the newest snapshot is called stale.
    #[arg(long, env = "SNAPSHOTS_STALE_HOURS", default_value_t = 50, value_name = "HOURS")]
    pub stale_hours: u32,
}

impl SourceArgs {
    /// What to do with columns this program does not know.
    pub fn column_rules(&self) -> ColumnRules {
        ColumnRules { include: self.include_columns.clone(), omit: self.omit_columns.clone() }
    }
}

impl SourceArgs {
    /// How long a snapshot may be believed to be the newest.
    pub fn latest_valid(&self) -> Duration {
        Duration::from_secs(u64::from(self.latest_valid_days) * 86_400)
    }
}

impl ServiceArgs {
    /// True if this process has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }
}

/// A network's name is part of public keys and URLs.
pub fn network_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let reserved = [
        "api",
        "audit-log",
        "chunks",
        "latest.json",
        "metrics",
        "health",
        "signing-keys",
        "snapshots",
        "status",
        "runs",
        "schedules",
        "queues",
        "workers",
        "workflows",
        "livez",
        "readyz",
        "version",
    ];
    if name.is_empty() || name.len() > 40 || !name.chars().all(good) || reserved.contains(&name) {
        return Err("use lower-case letters, digits and hyphens, for example mainnet".into());
    }
    Ok(name.to_owned())
}

/// Addresses and secrets, from the environment alone. `None` means: use the embedded server.
#[derive(Clone, Default)]
pub struct Servers {
    /// `DATABASE_URL`.
    pub database_url: Option<String>,
    /// `CONTROL_DATABASE_URL`; by default the same database.
    pub control_database_url: Option<String>,
    /// `S3_BUCKET` with `S3_ENDPOINT`, `S3_TIMEOUT_SECONDS` and `AWS_*`.
    pub store: Option<StoreConfig>,
    /// `SNAPSHOTS_FULL_RECIPIENTS_FILE` and `SNAPSHOTS_FULL_BUCKET`; `None`: the `full` profile is not cut.
    pub full: Option<FullServer>,
    /// `SNAPSHOTS_STAGING_URL` and `SNAPSHOTS_STAGING_RULES_FILE`; `None`: there is no staging database.
    pub staging: Option<Staging>,
    /// `PUBLIC_BASE_URL`: where the bucket, or the service that holds it, can be read by anyone.
    pub public_base_url: Option<String>,
    /// `PUBLIC_SERVICE_URL`: where this service can be read by anyone, for archives that are not in the bucket.
    pub public_service_url: Option<String>,
    /// `SNAPSHOTS_DRILL_DATABASE_URL`: a server on which drills may make databases; by default a private one is started for each.
    pub drill_database_url: Option<String>,
    /// `SNAPSHOTS_SIGNING_KEY_DIR` and the password of its keys.
    pub signing: Signing,
    /// `SNAPSHOTS_ALARM_WEBHOOK`, its secret, and `SNAPSHOTS_HEARTBEAT_URL`.
    pub receivers: Receivers,
}

impl Servers {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names every variable that is missing.
    pub fn from_env() -> Result<Self, Failure> {
        Self::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let public_base_url = var("PUBLIC_BASE_URL").map(|url| url.trim_end_matches('/').to_owned());
        let public_service_url = var("PUBLIC_SERVICE_URL").map(|url| url.trim_end_matches('/').to_owned());
        let store = match var("S3_BUCKET") {
            Some(bucket) => Some(store(&var, bucket, public_base_url.is_some())?),
            None if var("S3_ENDPOINT").is_some() => {
                return Err(Failure::new(Exit::Usage, "S3_ENDPOINT is set but S3_BUCKET is not")
                    .hint("set S3_BUCKET to the bucket's name"));
            }
            None => None,
        };
        let full = full_profile::from_vars(&var, store.as_ref())?;
        let staging = staging::from_vars(&var)?;
        let database_url = var("DATABASE_URL");
        let control_database_url = var("CONTROL_DATABASE_URL");
        let drill_database_url = var("SNAPSHOTS_DRILL_DATABASE_URL");
        let signing = Signing::from_vars(&var)?;
        let receivers = receivers::from_vars(&var)?;
        Ok(Self {
            database_url,
            control_database_url,
            drill_database_url,
            public_service_url,
            store,
            full,
            staging,
            public_base_url,
            signing,
            receivers,
        })
    }
}

fn store(var: &impl Fn(&str) -> Option<String>, bucket: String, has_base_url: bool) -> Result<StoreConfig, Failure> {
    let access_key = var("AWS_ACCESS_KEY_ID");
    let secret_key = var("AWS_SECRET_ACCESS_KEY");
    let mut missing = Vec::new();
    if access_key.is_none() {
        missing.push("AWS_ACCESS_KEY_ID");
    }
    if secret_key.is_none() {
        missing.push("AWS_SECRET_ACCESS_KEY");
    }
    if !has_base_url {
        missing.push("PUBLIC_BASE_URL");
    }
    let (Some(access_key), Some(secret_key), true) = (access_key, secret_key, has_base_url) else {
        let failure = Failure::new(Exit::Usage, format!("S3_BUCKET is set but {} is not", missing.join(", ")));
        return Err(failure.hint("PUBLIC_BASE_URL is the address at which anyone can read the bucket; it goes into manifests"));
    };
    let region = var("AWS_REGION").unwrap_or_else(|| "auto".into());
    let patience = var("S3_TIMEOUT_SECONDS").map_or(Ok(PATIENCE), |seconds| patience(&seconds))?;
    Ok(StoreConfig { endpoint: var("S3_ENDPOINT"), bucket, region, access_key, secret_key, patience })
}

fn patience(seconds: &str) -> Result<Duration, Failure> {
    let seconds = seconds.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        Failure::new(Exit::Usage, "S3_TIMEOUT_SECONDS is not a whole number from 1 to 3600")
            .hint("leave it out for 60: how long the bucket may take for one request")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let vars = |name: &str| (name == "S3_BUCKET").then(|| "b".to_owned());
        let failure = Servers::from_vars(vars).err().unwrap();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, PUBLIC_BASE_URL"), "{failure}");
    }

    #[test]
    fn a_schedule_is_set_to_a_time_or_to_off() {
        let set = schedule_setting("nightly-snapshot=30 3 * * *").unwrap();
        assert_eq!((set.name.as_str(), set.cron.as_deref()), ("nightly-snapshot", Some("30 3 * * *")));
        assert_eq!(schedule_setting("nightly-snapshot=off").unwrap().cron, None);
        for bad in ["nightly-snapshot", "nightly=off", "nightly-snapshot=", "nightly-snapshot=61 * * * *"] {
            assert!(schedule_setting(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_patience_that_is_no_number_of_seconds_is_refused() {
        assert_eq!(patience("5").unwrap(), Duration::from_secs(5));
        for bad in ["0", "5s", "-1", "3601"] {
            assert_eq!(patience(bad).err().unwrap().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn a_network_must_fit_into_a_url() {
        assert!(network_name("mainnet").is_ok());
        for bad in ["", "Main", "a/b", "..", "snapshots", "a b"] {
            assert!(network_name(bad).is_err(), "{bad}");
        }
    }
}
