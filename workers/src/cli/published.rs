//! Published snapshots as `restore`, `update`, `verify` and `download --chunks` reach them: the service need not run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use snapshot::encrypt::Identities;
use snapshot::fetch::{FetchError, OpenError, Opened, Seen, Source, Wanted, open};
use snapshot::load::{LoadError, Refusal};
use snapshot::sign::TrustedKeys;
use snapshot::store::{PATIENCE, Store, StoreConfig};

use super::show;
use crate::config::DataDirArgs;
use crate::exit::{Exit, Failure};
use crate::signing::Signing;

/// Which snapshot, from where, and whom to believe.
#[derive(Args)]
pub(crate) struct PublishedArgs {
    /// Where snapshots are published: an address (https://…), s3://BUCKET (with S3_ENDPOINT and AWS_*), or a directory that
    /// `snapshots download --chunks` made.
    #[arg(long, env = "SNAPSHOTS_FROM", value_name = "URL|s3://BUCKET|DIR")]
    from: String,
    /// Snapshot id; by default the newest.
    #[arg(long, value_parser = show::snapshot_id)]
    id: Option<String>,
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// What to look for, and what opens it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProfileArgs {
    /// What to look for: public, which everybody may read, or full, every table of the lost database, for its operators.
    #[arg(long, value_enum, default_value_t = ProfileArg::Public, hide_default_value = true)]
    profile: ProfileArg,
    /// File with the age identity (AGE-SECRET-KEY-1…) that opens snapshots of the full profile.
    #[arg(long, env = "SNAPSHOTS_IDENTITY_FILE", value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl ProfileArgs {
    /// Whether every table is looked for.
    pub(crate) fn is_full(&self) -> bool {
        self.profile == ProfileArg::Full
    }
}

/// Which profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// The chain.
    Public,
    /// Everything, encrypted.
    Full,
}

/// Whom to believe.
#[derive(Clone, Args)]
pub(crate) struct TrustArgs {
    /// Network, where several are published.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
    /// Public key to believe, as text or as a file; give it once for each key. By default the keys in the data directory, if the
    /// publisher runs there.
    #[arg(long = "public-key", env = "SNAPSHOTS_PUBLIC_KEY", value_delimiter = ',', value_name = "KEY|FILE")]
    public_keys: Vec<String>,
    /// Take a `latest` that is older than one seen before, or past the time by which a newer one was promised, or a snapshot that its
    /// publisher took back.
    #[arg(long)]
    allow_rollback: bool,
    #[command(flatten)]
    dir: DataDirArgs,
}

impl PublishedArgs {
    /// As if it had been written on the command line.
    pub(crate) fn new(from: String, id: Option<String>, profile: ProfileArgs, trust: TrustArgs) -> Self {
        Self { from, id, profile, trust }
    }

    /// Opens the place; nothing is fetched yet.
    pub(crate) fn source(&self) -> anyhow::Result<Source> {
        let source = source(&self.from)?;
        if !self.profile.is_full() {
            return Ok(source);
        }
        let Some(identity) = &self.profile.identity else {
            let failure = Failure::new(Exit::Usage, "snapshots of the full profile are encrypted, and no identity is named");
            return Err(failure.hint("name the file with --identity or SNAPSHOTS_IDENTITY_FILE").into());
        };
        let unusable = |error| Failure::caused(Exit::Auth, "the identity cannot be used", error).hint("see --identity");
        Ok(source.opened_with(Identities::from_file(identity).map_err(unusable)?))
    }

    /// The id that was asked for.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Fetches the manifest and believes it only if it is signed by a trusted key.
    pub(crate) async fn open(&self, source: &Source) -> anyhow::Result<Opened> {
        self.open_id(source, self.id.clone()).await
    }

    /// As [`Self::open`], of another snapshot than the one asked for.
    pub(crate) async fn open_id(&self, source: &Source, id: Option<String>) -> anyhow::Result<Opened> {
        let wanted = self.trust.wanted(id)?;
        open(source, &wanted).await.map_err(|error| not_opened(error).into())
    }
}

/// The place that a text names.
pub(crate) fn source(from: &str) -> anyhow::Result<Source> {
    if let Some(bucket) = from.strip_prefix("s3://") {
        return Ok(Source::bucket(Store::new(&bucket_config(bucket)?)));
    }
    if from.contains("://") {
        let no_address =
            |error| Failure::caused(Exit::Usage, "--from makes no sense", error).hint("for example https://snapshots.example");
        return Ok(Source::http(from).map_err(no_address)?);
    }
    let path = PathBuf::from(from);
    if path.is_dir() {
        return Ok(Source::directory(path));
    }
    let failure = Failure::new(Exit::NotFound, format!("there is no directory {from}"));
    Err(failure
        .hint("write an address with https://, a bucket with s3://, or make the directory with `snapshots download --chunks`")
        .into())
}

fn bucket_config(bucket: &str) -> Result<StoreConfig, Failure> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let missing = || {
        let failure = Failure::new(Exit::Usage, "s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
        failure.hint("set them, and S3_ENDPOINT unless the bucket is AWS's; or read the bucket by its public address")
    };
    Ok(StoreConfig {
        endpoint: var("S3_ENDPOINT"),
        bucket: bucket.trim_end_matches('/').to_owned(),
        region: var("AWS_REGION").unwrap_or_else(|| "auto".into()),
        access_key: var("AWS_ACCESS_KEY_ID").ok_or_else(missing)?,
        secret_key: var("AWS_SECRET_ACCESS_KEY").ok_or_else(missing)?,
        patience: PATIENCE,
    })
}

impl TrustArgs {
    /// As if it had been written on the command line.
    pub(crate) fn new(network: Option<String>, public_keys: Vec<String>, allow_rollback: bool, dir: DataDirArgs) -> Self {
        Self { network, public_keys, allow_rollback, dir }
    }

    fn wanted(&self, id: Option<String>) -> anyhow::Result<Wanted> {
        let dir = self.dir.path();
        let mut trusted = TrustedKeys::default();
        for key in self.public_keys.iter().filter(|key| !key.trim().is_empty()) {
            trusted.add(key).map_err(|error| {
                let failure = Failure::caused(Exit::Usage, "--public-key makes no sense", error);
                failure.hint("`snapshots signing-key show` at the publisher prints the keys")
            })?;
        }
        let own = Signing::from_env()?.keyring(&dir);
        if trusted.is_empty() && own.exists() {
            trusted = own.trusted().map_err(crate::signing::failure)?;
        }
        let (network, allow_rollback) = (self.network.clone(), self.allow_rollback);
        Ok(Wanted { network, id, trusted, seen: Some(Seen::in_directory(&dir)), allow_rollback })
    }
}

/// A snapshot that is not believed or not there, with the exit code that fits.
pub(crate) fn not_opened(error: OpenError) -> Failure {
    let (exit, hint) = match &error {
        OpenError::Fetch(fetch) => of_fetch(fetch),
        OpenError::Signature(snapshot::sign::SignatureError::NoKeys) => {
            (Exit::Refused, "learn the publisher's keys (`snapshots signing-key show` there) and name them with --public-key")
        }
        OpenError::Unsigned { .. } | OpenError::Signature(_) | OpenError::Other { .. } => {
            (Exit::Refused, "do not use it before the publisher has told you, by another way, which keys are right")
        }
        OpenError::Rollback { .. } | OpenError::Expired { .. } => {
            (Exit::Refused, "ask the publisher; --allow-rollback takes it all the same")
        }
        OpenError::Retracted { .. } => {
            (Exit::Refused, "take another one, into an empty database; --allow-rollback takes this one all the same")
        }
        OpenError::Memory { .. } => (Exit::Refused, "it lies in the directory of --data-dir (SNAPSHOTS_DATA_DIR)"),
        OpenError::None { .. } => (Exit::NotFound, "check --from, --id and --network"),
        OpenError::SeveralNetworks { .. } => (Exit::Usage, "add --network"),
        OpenError::Manifest(_) | OpenError::Pointer { .. } => {
            (Exit::Diverged, "what is published is damaged, or of a newer version")
        }
    };
    Failure::caused(exit, "the snapshot is not used", error).hint(hint)
}

/// A restore or update that did not come to its end, with the exit code that fits.
pub(crate) fn not_loaded(error: LoadError) -> anyhow::Error {
    let again = "run the same command again to go on";
    let (exit, hint) = match &error {
        LoadError::Refused(reasons) if reasons.iter().any(|reason| matches!(reason, Refusal::Rights { .. })) => {
            (Exit::Auth, "let the owner of the database run the statements above, then run the same command again")
        }
        LoadError::Refused(_) | LoadError::NotUpdatable(_) => (Exit::Refused, "nothing was written"),
        LoadError::Selection(_) => (Exit::Usage, "`--dry-run` shows what the snapshot holds"),
        LoadError::Busy => (Exit::Conflict, "it goes on by itself"),
        LoadError::Fetch(fetch) => of_fetch(fetch),
        LoadError::Chunk { .. } | LoadError::Schema(_) => {
            (Exit::Diverged, "nothing of it was kept; tell the publisher, or try another --id")
        }
        // The database's own errors have codes and hints of their own.
        LoadError::Database { .. } | LoadError::Verify(_) => return anyhow::Error::from(error).context(again),
        LoadError::Panicked => (Exit::Failed, again),
    };
    Failure::caused(exit, "not done", error).hint(hint).into()
}

fn of_fetch(error: &FetchError) -> (Exit, &'static str) {
    match error {
        error if error.is_unreachable() => (Exit::Unreachable, "run the same command again to go on"),
        FetchError::Missing { .. } | FetchError::Damaged { .. } => {
            (Exit::Diverged, "the published snapshot is damaged: tell the publisher, or try another --id")
        }
        FetchError::Closed { .. } => (Exit::Auth, "name the file with the right identity with --identity"),
        FetchError::Address { .. } => (Exit::Usage, "check --from"),
        _ => (Exit::Failed, "check --from and the rights to read it"),
    }
}
