//! `snapshots download`: the archive of a snapshot, or its chunks; resumed where it stopped, and checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::TryStreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use snapshot::fetch::{PROGRESS_BYTES, Pace, SILENCE};
use snapshot::key::Key;
use snapshot::manifest::{Archive, Manifest};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, ClientArgs};
use super::published::{ProfileArgs, PublishedArgs, TrustArgs};
use super::{mirror, show, signals};
use crate::exit::{Exit, Failure, classify};
use crate::output::{Output, Progress, bytes};

/// How often a cut connection is taken up again without progress.
const TRIES: u32 = 5;
/// Half of the wait before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct DownloadArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Snapshot id, or `latest`.
    #[arg(default_value = "latest", value_parser = show::snapshot_id)]
    id: String,
    /// Network, where the service has several.
    #[arg(long, value_parser = crate::config::network_name)]
    network: Option<String>,
    /// Directory to put the archive, or the chunks, into.
    #[arg(long, short, default_value = ".")]
    output_dir: PathBuf,
    /// The signed manifest and its chunks instead of the archive: `snapshots restore --from DIR` reads them, and snapshots in one
    /// directory share what they have in common.
    #[arg(long)]
    chunks: bool,
    /// Where snapshots are published, and signed; by default the service is asked. A bucket or a directory only with --chunks.
    #[arg(long, value_name = "URL|s3://BUCKET|DIR")]
    from: Option<String>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// With --chunks or --from: public key to believe, as text or as a file; give it once for each key.
    #[arg(long = "public-key", env = "SNAPSHOTS_PUBLIC_KEY", value_delimiter = ',', value_name = "KEY|FILE")]
    public_keys: Vec<String>,
    /// With --chunks or --from: take a `latest` that is older than one seen before, or past the time by which a newer one was
    /// promised, or a snapshot that its publisher took back.
    #[arg(long)]
    allow_rollback: bool,
}

pub(crate) async fn run(args: DownloadArgs, output: Output) -> anyhow::Result<()> {
    signals::interruptible(download(args, output), "what has arrived is kept; run the same command again to go on").await
}

async fn download(args: DownloadArgs, output: Output) -> anyhow::Result<()> {
    if args.chunks {
        return mirror::run(&published(&args)?, &args.output_dir, output).await;
    }
    if args.profile.is_full() {
        let failure = Failure::new(Exit::Usage, "a snapshot of the full profile has no archive");
        return Err(failure.hint("add --chunks, and name its bucket with --from").into());
    }
    let (client, manifest, url) = archive(&args).await?;
    tokio::fs::create_dir_all(&args.output_dir).await.with_context(|| format!("cannot make {}", args.output_dir.display()))?;
    let target = args.output_dir.join(manifest.path().archive_name());
    let part = target.with_extension("zst.part");
    if !target.exists() {
        fetch(&client, &url, (&manifest, &part), output).await?;
        check(&part, &manifest).await?;
        tokio::fs::rename(&part, &target).await?;
    } else {
        check(&target, &manifest).await?;
    }
    output.result(
        &format!("{} is complete and its sha256 is right\nextract it with: tar --zstd -xf {}", target.display(), target.display()),
        &json!({ "path": target, "sizeBytes": manifest.size_bytes, "checksum": manifest.checksum, "blockHeight": manifest.block_height }),
    );
    Ok(())
}

fn published(args: &DownloadArgs) -> anyhow::Result<PublishedArgs> {
    let from = match &args.from {
        Some(from) => from.clone(),
        None => Client::new(&args.client)?.url(""),
    };
    let id = (args.id != "latest").then(|| args.id.clone());
    let trust = TrustArgs::new(args.network.clone(), args.public_keys.clone(), args.allow_rollback, args.client.dir());
    Ok(PublishedArgs::new(from, id, args.profile.clone(), trust))
}

/// Whom to ask, which snapshot, and where its archive is: beside the signed manifest, or where the service's manifest says.
async fn archive(args: &DownloadArgs) -> anyhow::Result<(Client, Manifest, String)> {
    let Some(from) = &args.from else {
        let client = Client::new(&args.client)?;
        let manifest = show::manifest(&client, &args.id, args.network.as_deref()).await?;
        let url = format!("{}/{}", manifest.archive_base(&client.url("")), Key::Archive(manifest.path()));
        return Ok((client, manifest, url));
    };
    if !from.starts_with("http://") && !from.starts_with("https://") {
        let failure = Failure::new(Exit::Usage, "an archive is downloaded from an address");
        return Err(failure.hint("add --chunks, which takes a bucket or a directory too").into());
    }
    let published = published(args)?;
    let manifest = published.open(&published.source()?).await?.manifest;
    let client = Client::of(from)?;
    // One that is made as it is read is at the service, not in the bucket.
    let base = if manifest.archive == Archive::OnRequest { manifest.archive_base(from) } else { from.trim_end_matches('/') };
    let url = format!("{base}/{}", Key::Archive(manifest.path()));
    Ok((client, manifest, url))
}

/// Fetches what is missing of `part`.
async fn fetch(client: &Client, url: &str, (manifest, part): (&Manifest, &Path), output: Output) -> anyhow::Result<()> {
    let mut progress = output.progress("downloading", manifest.size_bytes);
    let mut file = OpenOptions::new().create(true).append(true).open(part).await?;
    let mut etag = None;
    let mut idle = 0;
    loop {
        let have = file.metadata().await?.len();
        if have >= manifest.size_bytes {
            break;
        }
        let appended = append(client, url, (&mut file, have), &mut etag, &mut progress).await;
        file.flush().await?;
        let got = file.metadata().await?.len() - have;
        idle = if got >= PROGRESS_BYTES as u64 { 0 } else { idle + 1 };
        let error = appended.err().unwrap_or_else(|| Failure::new(Exit::Unreachable, "the server sends nothing").into());
        if idle >= TRIES || classify(&error).0 != Exit::Unreachable {
            return Err(error.context("the download stopped; run the same command again to go on"));
        }
        if idle > 0 {
            tokio::time::sleep(PAUSE * 2_u32.pow(idle)).await;
        }
    }
    progress.finish();
    Ok(())
}

async fn append(
    client: &Client,
    url: &str,
    (file, have): (&mut File, u64),
    etag: &mut Option<String>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let response = client.open(url, have, etag.as_deref()).await?;
    if have > 0 && response.status() != reqwest::StatusCode::PARTIAL_CONTENT {
        let failure = Failure::new(Exit::Failed, "the server ignores ranges, so the download cannot be resumed");
        return Err(failure.hint("delete the .part file and download again").into());
    }
    *etag = response.headers().get(reqwest::header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut done = have;
    let (mut body, mut pace) = (response.bytes_stream(), Pace::new(SILENCE));
    let dripping = |how: String| Failure::new(Exit::Unreachable, format!("the server drips: {how}"));
    while let Some(bytes) = pace.next(body.try_next()).await.map_err(dripping)?? {
        pace.came(bytes.len());
        file.write_all(&bytes).await?;
        done += bytes.len() as u64;
        progress.set(done);
    }
    Ok(())
}

async fn check(path: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let found = sha256(path).await?;
    if format!("sha256:{found}") == manifest.checksum {
        return Ok(());
    }
    let size = tokio::fs::metadata(path).await?.len();
    let message = format!(
        "{} is damaged: sha256 {found} ({}) instead of {} ({})",
        path.display(),
        bytes(size),
        manifest.checksum,
        bytes(manifest.size_bytes)
    );
    Err(Failure::new(Exit::Diverged, message).hint("delete it and download again").into())
}

/// sha256 (hex) of a file.
pub(crate) async fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path).await?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(&buffer[..count]);
    }
}
