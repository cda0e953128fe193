//! A real `snapshots serve` process on the test's own database and bucket.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use snapshot::manifest::Manifest;
use snapshot::sign::{Keyring, Password};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::bucket::{TestBucket, bucket};
use super::cli::bare_command;
use super::database::{TestDatabase, database};
use super::wait::wait_until;

/// How long anything may take before a test says it hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// A database and a bucket, and what a service on them is told.
pub(crate) struct Site {
    pub(crate) database: TestDatabase,
    pub(crate) bucket: TestBucket,
    pub(crate) dir: TempDir,
    flags: Vec<String>,
    embedded_bucket: bool,
}

/// A site whose database is empty.
pub(crate) async fn site() -> Site {
    site_on(database().await).await
}

async fn site_on(database: TestDatabase) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let site = Site { database, bucket: bucket().await, dir, flags: Vec::new(), embedded_bucket: false };
    site.keyring().generate().unwrap();
    site
}

/// A site with a synthetic chain of network mainnet.
pub(crate) async fn site_with_chain(blocks: u64) -> Site {
    site_with_chain_on(database().await, blocks).await
}

/// As [`site_with_chain`], on an empty database of some other server.
pub(crate) async fn site_with_chain_on(database: TestDatabase, blocks: u64) -> Site {
    let site = site_on(database).await;
    let pool = site.database.pool().await;
    chain::migrate(&pool).await.unwrap();
    let spec =
        chain::synthetic::Spec { blocks, seed: 7, profile: chain::synthetic::Profile::Nakamoto, network: "mainnet".into() };
    chain::synthetic::load(&pool, &spec, |_| {}).await.unwrap();
    pool.close().await;
    site
}

/// A site with a snapshot of such a chain, whose service is gone.
pub(crate) async fn published(blocks: u64) -> (Site, Manifest) {
    let site = site_with_chain(blocks).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
    (site, manifest)
}

impl Site {
    /// Adds flags to every service started on this site.
    pub(crate) fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Services of this site keep their bucket in the site's directory and serve its objects themselves.
    pub(crate) fn with_embedded_bucket(mut self) -> Self {
        self.embedded_bucket = true;
        self
    }

    /// The keys that sign what is published here.
    pub(crate) fn keyring(&self) -> Keyring {
        Keyring::new(self.dir.path().join("signing-keys"), Password::default())
    }

    /// A command of the binary with this site's servers in its environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = bare_command(&[]);
        command.env("DATABASE_URL", self.database.url()).env("SNAPSHOTS_DATA_DIR", self.dir.path());
        // A test that runs at two o'clock at night has no more snapshots than others.
        command.env("SNAPSHOTS_NO_SCHEDULES", "true");
        // A drill restores everything twice; tests of drills ask for it.
        command.env("SNAPSHOTS_DRILL", "off");
        if self.embedded_bucket {
            return command;
        }
        let config = self.bucket.config();
        command
            .env("S3_ENDPOINT", self.bucket.endpoint())
            .env("S3_BUCKET", &config.bucket)
            .env("AWS_REGION", &config.region)
            .env("AWS_ACCESS_KEY_ID", &config.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &config.secret_key)
            .env("PUBLIC_BASE_URL", "https://snapshots.example")
            .env("SNAPSHOTS_SIGNING_KEY_DIR", self.keyring().dir());
        command
    }

    /// The public keys to believe, as `SNAPSHOTS_PUBLIC_KEY` takes them.
    pub(crate) fn public_keys(&self) -> String {
        let keys: Vec<String> = self.keyring().published().unwrap().into_iter().map(|key| key.public_key).collect();
        keys.join(",")
    }

    /// Runs `snapshots restore`, `update` or `verify` on a database, believing this site's keys and told nothing else of it.
    pub(crate) fn client(&self, verb: &str, from: &str, database_url: &str) -> Command {
        let mut command = bare_command(&[verb, "--json", "--from", from]);
        command
            .env("DATABASE_URL", database_url)
            .env("SNAPSHOTS_DATA_DIR", self.dir.path().join("reader"))
            .env("SNAPSHOTS_PUBLIC_KEY", self.public_keys());
        command
    }

    /// As [`Site::client`], from the bucket with credentials, reached at `endpoint`.
    pub(crate) fn client_of_bucket(&self, verb: &str, endpoint: &str, database_url: &str) -> Command {
        let config = self.bucket.config();
        let mut command = self.client(verb, &format!("s3://{}", config.bucket), database_url);
        command.env("S3_ENDPOINT", endpoint).env("AWS_REGION", &config.region);
        command.env("AWS_ACCESS_KEY_ID", &config.access_key).env("AWS_SECRET_ACCESS_KEY", &config.secret_key);
        command
    }

    /// Where the objects lie, as an argument of `--from`.
    pub(crate) fn published(&self) -> String {
        self.objects().to_str().unwrap().to_owned()
    }

    /// Starts `snapshots serve` and waits until it answers.
    pub(crate) async fn serve(&self) -> ServiceProcess {
        self.serve_with(&[]).await
    }

    /// As [`Site::serve`], with these variables in its environment.
    pub(crate) async fn serve_with(&self, env: &[(&str, &str)]) -> ServiceProcess {
        let mut command = self.command();
        command.args(["serve", "--json", "--listen", "127.0.0.1:0"]).args(&self.flags).stdout(Stdio::piped());
        command.envs(env.iter().copied());
        ServiceProcess::start(command).await
    }

    /// Starts a service beside one that runs on this site: as on another machine, but for the name of the host.
    pub(crate) async fn serve_beside(&self, env: &[(&str, &str)]) -> ServiceProcess {
        let beside = self.dir.path().join("beside");
        let mut all = vec![("SNAPSHOTS_DATA_DIR", beside.to_str().unwrap())];
        all.extend(env);
        self.serve_with(&all).await
    }

    /// Where the objects lie as plain files, each under its key.
    pub(crate) fn objects(&self) -> PathBuf {
        if self.embedded_bucket { self.dir.path().join("s3/objects/snapshots") } else { self.bucket.root() }
    }

    /// Keys of all objects in the bucket, sorted.
    pub(crate) fn keys(&self) -> Vec<String> {
        let root = self.objects();
        let mut keys = Vec::new();
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let name = entry.file_name().into_string().unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else if !name.starts_with('.') {
                    keys.push(entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        keys.sort();
        keys
    }
}

/// A running service; killed when dropped.
pub(crate) struct ServiceProcess {
    pub(crate) child: Child,
    pub(crate) url: String,
    http: reqwest::Client,
}

impl ServiceProcess {
    /// Runs a `… --json serve` command until it says where it listens.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("the service ended before it listened");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["type"] == "result" {
                let url = said["result"]["url"].as_str().unwrap().to_owned();
                return Self { child, url, http: reqwest::Client::new() };
            }
        }
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    /// `POST`, without a body.
    pub(crate) async fn post(&self, path: &str) -> reqwest::Response {
        self.http.post(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// `POST` with a body.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> reqwest::Response {
        self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }

    /// `POST /workflows/snapshot/runs`.
    pub(crate) async fn create(&self, params: &Value) -> reqwest::Response {
        self.http.post(format!("{}/workflows/snapshot/runs", self.url)).json(params).send().await.unwrap()
    }

    /// Starts a run of any workflow and returns its id.
    pub(crate) async fn begin(&self, workflow: &str, params: &Value) -> String {
        let answer = self.http.post(format!("{}/workflows/{workflow}/runs", self.url)).json(params).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        let body: Value = answer.json().await.unwrap();
        body["runId"].as_str().unwrap().to_owned()
    }

    /// Runs a workflow to its end, which must be a good one, and returns the run.
    pub(crate) async fn complete(&self, workflow: &str, params: &Value) -> Value {
        let run = self.begin(workflow, params).await;
        let ended = self.ended(&run).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        ended
    }

    /// Starts a run and returns its id.
    pub(crate) async fn start_run(&self) -> String {
        let answer = self.create(&json!({})).await;
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        let body: Value = answer.json().await.unwrap();
        body["runId"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a run and returns it.
    pub(crate) async fn ended(&self, run: &str) -> Value {
        let mut shown = Value::Null;
        wait_until(PATIENCE, "the run ends", async || {
            shown = self.json(&format!("/runs/{run}")).await;
            matches!(shown["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
        })
        .await;
        shown
    }

    /// Cuts a snapshot and returns its manifest.
    pub(crate) async fn cut(&self) -> Manifest {
        let run = self.start_run().await;
        let ended = self.ended(&run).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        let bytes = self.get("/snapshots/latest").await.bytes().await.unwrap();
        Manifest::from_bytes(&bytes).unwrap()
    }

    /// Cuts a snapshot that must fail, and returns why.
    pub(crate) async fn cut_refused(&self) -> String {
        let run = self.start_run().await;
        let ended = self.ended(&run).await;
        assert_eq!(ended["state"], "failed", "{ended:#}");
        ended["error"].as_str().unwrap().to_owned()
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), signal).unwrap();
    }

    /// SIGTERM, and the exit status.
    pub(crate) async fn terminate(self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.stopped().await
    }

    /// The exit status of a service that was told to stop.
    pub(crate) async fn stopped(mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the service does not stop").unwrap()
    }
}
