//! The servers of this test process, started by the first test that needs them.
use std::path::PathBuf;
use std::sync::OnceLock;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use workers::embedded::data_dir::DataDir;
use workers::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};
use workers::embedded::s3::EmbeddedS3;

static RUNTIME: OnceLock<Handle> = OnceLock::new();
static DATA_DIR: OnceLock<DataDir> = OnceLock::new();
static POSTGRES: OnceCell<EmbeddedPostgres> = OnceCell::const_new();
static S3: OnceCell<EmbeddedS3> = OnceCell::const_new();

/// A runtime that outlives every test.
pub(super) fn runtime() -> &'static Handle {
    RUNTIME.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            sender.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        };
        std::thread::Builder::new().name("test-servers".into()).spawn(serve).unwrap();
        receiver.recv().unwrap()
    })
}

pub(super) fn data_dir() -> &'static DataDir {
    DATA_DIR.get_or_init(|| DataDir::ephemeral().unwrap())
}

pub(super) async fn postgres() -> &'static EmbeddedPostgres {
    let start = || async {
        EmbeddedPostgres::start(PostgresOptions {
            dir: data_dir().postgres_dir(),
            pg_bin: std::env::var_os("SNAPSHOTS_PG_BIN").map(PathBuf::from),
            durability: Durability::Ephemeral,
            settings: vec![("max_connections".into(), "300".into())],
        })
        .await
        .unwrap()
    };
    runtime().spawn(async move { POSTGRES.get_or_init(start).await }).await.unwrap()
}

pub(super) async fn s3() -> &'static EmbeddedS3 {
    let start = || async { EmbeddedS3::start(&data_dir().s3_dir(), "unused", Durability::Ephemeral).await.unwrap() };
    runtime().spawn(async move { S3.get_or_init(start).await }).await.unwrap()
}
