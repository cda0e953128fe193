//! Where the `full` profile goes and who can read it, from the environment alone.

use std::path::Path;

use snapshot::encrypt::Recipients;
use snapshot::store::StoreConfig;

use crate::exit::{Exit, Failure};

/// Who can read the `full` profile, and where it goes.
#[derive(Debug, Clone)]
pub struct FullServer {
    /// Public keys.
    pub recipients: Recipients,
    /// Its bucket; `None` where buckets are embedded.
    pub store: Option<StoreConfig>,
}

/// A bucket that is published is readable by everybody, down to the last object: the `full` profile never goes there.
pub(crate) fn from_vars(
    var: &impl Fn(&str) -> Option<String>,
    store: Option<&StoreConfig>,
) -> Result<Option<FullServer>, Failure> {
    let usage = |message: &str, hint: &str| Err(Failure::new(Exit::Usage, message).hint(hint));
    let bucket = var("SNAPSHOTS_FULL_BUCKET");
    let Some(file) = var("SNAPSHOTS_FULL_RECIPIENTS_FILE") else {
        return match bucket {
            None => Ok(None),
            Some(_) => usage(
                "SNAPSHOTS_FULL_BUCKET is set but SNAPSHOTS_FULL_RECIPIENTS_FILE is not",
                "name a file with the age recipients (age1…) who may read what is stored there",
            ),
        };
    };
    let recipients = Recipients::from_file(Path::new(&file)).map_err(|error| {
        let failure = Failure::caused(Exit::Usage, "SNAPSHOTS_FULL_RECIPIENTS_FILE cannot be used", error);
        failure.hint("`snapshots recovery-key FILE` makes an identity and prints its recipient; only the recipient belongs here")
    })?;
    let store = match (store, bucket) {
        (None, None) => None,
        (Some(public), Some(bucket)) if bucket != public.bucket => Some(StoreConfig { bucket, ..public.clone() }),
        (Some(_), Some(_)) => {
            return usage("SNAPSHOTS_FULL_BUCKET is the published bucket", "name another one, which nobody else can read");
        }
        (Some(_), None) => {
            return usage(
                "SNAPSHOTS_FULL_RECIPIENTS_FILE is set but SNAPSHOTS_FULL_BUCKET is not",
                "name a bucket at the same server which nobody else can read",
            );
        }
        (None, Some(_)) => {
            return usage("SNAPSHOTS_FULL_BUCKET is set but S3_BUCKET is not", "leave it out: an embedded bucket is used");
        }
    };
    Ok(Some(FullServer { recipients, store }))
}

#[cfg(test)]
mod tests {
    use snapshot::store::PATIENCE;

    use super::*;

    #[test]
    fn the_full_profile_never_goes_where_everybody_reads() {
        let dir = tempfile::tempdir().unwrap();
        let recipient = snapshot::encrypt::Identities::generate(&dir.path().join("identity")).unwrap();
        let file = dir.path().join("recipients");
        std::fs::write(&file, recipient).unwrap();
        let public = || StoreConfig {
            endpoint: None,
            bucket: "public".into(),
            region: "auto".into(),
            access_key: String::new(),
            secret_key: String::new(),
            patience: PATIENCE,
        };
        let with = |bucket: Option<&str>, store: Option<&StoreConfig>| {
            let var = |name: &str| match name {
                "SNAPSHOTS_FULL_RECIPIENTS_FILE" => Some(file.to_str().unwrap().to_owned()),
                "SNAPSHOTS_FULL_BUCKET" => bucket.map(str::to_owned),
                _ => None,
            };
            from_vars(&var, store)
        };
        assert_eq!(with(Some("private"), Some(&public())).unwrap().unwrap().store.unwrap().bucket, "private");
        assert!(with(None, None).unwrap().unwrap().store.is_none());
        for (bucket, store) in [(Some("public"), Some(public())), (None, Some(public())), (Some("private"), None)] {
            assert_eq!(with(bucket, store.as_ref()).err().unwrap().exit, Exit::Usage, "{bucket:?}");
        }
        assert_eq!(
            from_vars(&|name| (name == "SNAPSHOTS_FULL_BUCKET").then(|| "b".into()), None).err().unwrap().exit,
            Exit::Usage
        );
    }
}
