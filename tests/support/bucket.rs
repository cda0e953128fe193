//! A bucket per test.
use std::path::PathBuf;

use snapshot::store::{PATIENCE, StoreConfig};
use uuid::Uuid;

use super::servers::s3;

/// A new, empty bucket on the embedded S3 server of this process; it goes when the process does.
pub(crate) struct TestBucket {
    config: StoreConfig,
    root: PathBuf,
}

/// Makes an empty bucket.
pub(crate) async fn bucket() -> TestBucket {
    let server = s3().await;
    let name = format!("test-{}", Uuid::new_v4().simple());
    server.create_bucket(&name).unwrap();
    TestBucket {
        root: server.root().join(&name),
        config: StoreConfig {
            endpoint: Some(server.endpoint()),
            bucket: name,
            region: server.region().to_owned(),
            access_key: server.access_key().to_owned(),
            secret_key: server.secret_key().to_owned(),
            patience: PATIENCE,
        },
    }
}

impl TestBucket {
    /// Endpoint, bucket and credentials.
    pub(crate) fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Name of the bucket.
    pub(crate) fn name(&self) -> &str {
        &self.config.bucket
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn endpoint(&self) -> &str {
        self.config.endpoint.as_deref().unwrap()
    }

    /// Where the objects lie as plain files, each under its key.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone()
    }
}
