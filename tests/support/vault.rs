//! Where snapshots of the `full` profile are kept, and what opens them.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use snapshot::encrypt::Identities;
use tokio::process::Command;

use super::bucket::{TestBucket, bucket};
use super::service::Site;

/// A bucket and keys of the profile.
pub(crate) struct Vault {
    pub(crate) bucket: TestBucket,
    pub(crate) identity: PathBuf,
    recipients: PathBuf,
}

/// An empty one, with keys in the site's directory.
pub(crate) async fn vault(site: &Site) -> Vault {
    let (identity, recipients) = (site.dir.path().join("identity"), site.dir.path().join("recipients"));
    std::fs::write(&recipients, Identities::generate(&identity).unwrap()).unwrap();
    Vault { bucket: bucket().await, identity, recipients }
}

impl Vault {
    /// What a service is told of it.
    pub(crate) fn env(&self) -> [(&str, &str); 2] {
        [("SNAPSHOTS_FULL_RECIPIENTS_FILE", self.recipients.to_str().unwrap()), ("SNAPSHOTS_FULL_BUCKET", self.bucket.name())]
    }

    /// Objects by key.
    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        objects(&self.bucket.root())
    }

    /// `snapshots restore --profile full` into a database.
    pub(crate) fn restore(&self, site: &Site, url: &str) -> Command {
        let root = self.bucket.root();
        let mut command = site.client("restore", root.to_str().unwrap(), url);
        command.args(["--profile", "full", "--identity"]).arg(&self.identity);
        command
    }
}

/// Files under a directory by their relative names, but for those that begin with a full stop.
pub(crate) fn objects(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
