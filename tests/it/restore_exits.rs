//! How `restore`, `update` and `verify` end where they cannot go on: interrupted, or with a place that does not answer.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::PgPool;
use tokio::process::Command;

use crate::support::{Site, bare_command, cut, database, grow, growing_site, published, run, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Interrupts a command that waits for a lock in the database; its exit code and last line.
async fn interrupted(mut command: Command, pool: &PgPool) -> (Option<i32>, Value) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock'
                     and application_name = 'snapshots restore' and datname = current_database())";
    wait_until(PATIENCE, "it waits", async || sqlx::query_scalar(waits).fetch_one(pool).await.unwrap()).await;
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it does not end").unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    (ended.status.code(), serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_or_a_verification_that_is_interrupted_ends_with_130_and_can_be_run_again() {
    let site = growing_site(500, 400).await;
    let source = site.database.pool().await;
    let service = site.serve().await;
    cut(&service, &source, serde_json::json!({})).await;
    let target = database().await;
    let pool = target.pool().await;
    run(&mut site.client("restore", &site.published(), target.url())).await.result();
    grow(&source, 499).await;
    let (newest, _) = cut(&service, &source, serde_json::json!({})).await;
    service.terminate().await;
    for (verb, args) in [("update", &[][..]), ("verify", &["--database", "--deep"])] {
        let command = || {
            let mut command = site.client(verb, &site.published(), target.url());
            command.args(args);
            command
        };
        let mut holder = pool.begin().await.unwrap();
        sqlx::raw_sql("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
        let (code, last) = interrupted(command(), &pool).await;
        assert_eq!((code, &last["type"], &last["code"]), (Some(130), &"error".into(), &130.into()), "{verb}: {last}");
        assert!(last["hint"].as_str().unwrap().contains("run the same command again"), "{verb}: {last}");
        holder.rollback().await.unwrap();
        let result = run(command()).await.result();
        assert_eq!(result["blockHeight"], newest.block_height, "{verb}: {result:#}");
    }
}

/// Commands that read what is published at an address where nobody listens.
fn unanswered(site: &Site, from: &str, url: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = ["restore", "update", "verify"].map(|verb| site.client(verb, from, url)).into();
    let mut download = bare_command(&["download", "--json", "--from", from, "--output-dir"]);
    download.arg(site.dir.path().join("download")).env("SNAPSHOTS_PUBLIC_KEY", site.public_keys());
    download.env("SNAPSHOTS_DATA_DIR", site.dir.path().join("reader"));
    if from.starts_with("s3://") {
        download.arg("--chunks");
    }
    commands.push(download);
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_does_not_answer_ends_every_command_that_reads_it_with_9() {
    let site = site_with_chain(300).await;
    let target = database().await;
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let config = site.bucket.config();
    let at_an_address = unanswered(&site, &nobody, target.url()).into_iter();
    let in_a_bucket = unanswered(&site, &format!("s3://{}", config.bucket), target.url()).into_iter().map(|mut command| {
        command.env("S3_ENDPOINT", &nobody).env("AWS_REGION", &config.region);
        command.env("AWS_ACCESS_KEY_ID", &config.access_key).env("AWS_SECRET_ACCESS_KEY", &config.secret_key);
        command
    });
    let ended = futures::future::join_all(at_an_address.chain(in_a_bucket).map(run)).await;
    assert_eq!(ended.len(), 8);
    for ran in ended {
        ran.error_with(9, &["again"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_verified_with_credentials_as_it_is_from_its_address() {
    let (site, manifest) = published(600).await;
    let verify = async |args: &[&str]| {
        let mut command = site.client_of_bucket("verify", site.bucket.endpoint(), site.database.url());
        run(command.args(args)).await
    };
    for args in [&[][..], &["--deep"]] {
        assert_eq!(verify(args).await.result()["proved"], true, "{args:?}");
    }
    let chunk = manifest.chunks.iter().find(|chunk| chunk.table == "events").unwrap();
    let path = site.objects().join(snapshot::key::Key::Chunk(chunk.sha256.clone()).to_string());
    std::fs::remove_file(path).unwrap();
    verify(&[]).await.error_with(5, &["in full length", "missing"]);
}
