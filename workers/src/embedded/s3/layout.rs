//! Where s3s-fs 0.14 keeps things on disk.
//!
//! Objects are plain files at `<root>/<bucket>/<key>`; attributes and `ETag` stand in dot files beside the buckets.
//! The version is pinned because this layout is not a promise of that crate. Invariant: no key leads out of its
//! bucket, and none is taken whose dot files the file system could not name.
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::{S3Result, s3_error};

use super::uploads::Open;

/// Hidden bucket of objects that are being written; a client cannot name it, since bucket names start with a letter
/// or digit.
pub(super) const STAGING: &str = ".staging";

/// Longest file name that common file systems take, in bytes.
const NAME_MAX: usize = 255;

/// The root directory of the server's buckets.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn bucket(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    /// The object's file; refuses keys that no file can stand for.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let plain = Path::new(key).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || key.split('/').any(|part| part.is_empty() || part == ".") || key.contains('\0') {
            return Err(s3_error!(InvalidArgument, "this server stores objects as files and cannot name one `{key}`"));
        }
        let longest = key.split('/').map(str::len).max().unwrap_or(0);
        if longest > NAME_MAX || self.sidecar(bucket, key, "metadata").as_os_str().len() > self.root.as_os_str().len() + NAME_MAX
        {
            return Err(s3_error!(KeyTooLongError, "this server stores objects as files and cannot name one so long"));
        }
        Ok(self.bucket(bucket).join(key))
    }

    /// Content type, cache control, user metadata.
    pub(super) fn attributes(&self, bucket: &str, key: &str) -> PathBuf {
        self.sidecar(bucket, key, "metadata")
    }

    /// `ETag` and checksums.
    pub(super) fn internal(&self, bucket: &str, key: &str) -> PathBuf {
        self.sidecar(bucket, key, "internal")
    }

    fn sidecar(&self, bucket: &str, key: &str, kind: &str) -> PathBuf {
        let (bucket, key) = (URL_SAFE_NO_PAD.encode(bucket), URL_SAFE_NO_PAD.encode(key));
        self.root.join(format!(".bucket-{bucket}.object-{key}.{kind}.json"))
    }

    /// The attributes given when a multipart upload began; it exists as long as the upload does, and only for the
    /// bucket and key that it was begun for.
    pub(super) fn upload_attributes(&self, bucket: &str, key: &str, upload: &str) -> PathBuf {
        let (bucket, key) = (URL_SAFE_NO_PAD.encode(bucket), URL_SAFE_NO_PAD.encode(key));
        self.root.join(format!(".bucket-{bucket}.object-{key}.upload-{upload}.metadata.json"))
    }

    /// Uploads into a bucket that were begun and have not ended.
    pub(super) fn open_uploads(&self, bucket: &str) -> std::io::Result<Vec<Open>> {
        let prefix = format!(".bucket-{}.object-", URL_SAFE_NO_PAD.encode(bucket));
        let mut open = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let parts = name.to_str().and_then(|name| {
                let (key, id) = name.strip_prefix(&prefix)?.strip_suffix(".metadata.json")?.split_once(".upload-")?;
                Some((String::from_utf8(URL_SAFE_NO_PAD.decode(key).ok()?).ok()?, id.to_owned()))
            });
            let Some((key, id)) = parts else { continue };
            match entry.metadata() {
                Ok(metadata) => open.push(Open { key, id, begun: metadata.modified()? }),
                // It ended meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }

    pub(super) fn upload(&self, upload: &str) -> PathBuf {
        self.root.join(format!(".upload-{upload}.json"))
    }

    pub(super) fn part(&self, upload: &str, number: i32) -> PathBuf {
        self.root.join(format!(".upload_id-{upload}.part-{number}"))
    }

    /// Our own: the part's `ETag`, which s3s-fs forgets. Its prefix makes an abort delete it too.
    pub(super) fn part_etag(&self, upload: &str, number: i32) -> PathBuf {
        self.root.join(format!(".upload_id-{upload}.etag-{number}"))
    }

    /// The numbers of the parts that an upload has, in order.
    pub(super) fn part_numbers(&self, upload: &str) -> std::io::Result<Vec<i32>> {
        let prefix = format!(".upload_id-{upload}.part-");
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let number: Option<i32> = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Deletes what a crash left behind: half-written objects and the parts of uploads that have ended.
    /// s3s-fs itself deletes its temporary files.
    pub(super) fn sweep(&self) -> std::io::Result<()> {
        let staging = self.bucket(STAGING);
        if staging.exists() {
            std::fs::remove_dir_all(&staging)?;
        }
        std::fs::create_dir_all(&staging)?;
        let staged = format!(".bucket-{}.", URL_SAFE_NO_PAD.encode(STAGING));
        let names: Vec<String> =
            std::fs::read_dir(&self.root)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        let live: std::collections::HashSet<&str> =
            names.iter().filter_map(|name| Some(name.strip_suffix(".metadata.json")?.rsplit_once(".upload-")?.1)).collect();
        for name in &names {
            let ended = upload_of(name).is_some_and(|upload| !live.contains(upload));
            if ended || name.starts_with(&staged) {
                std::fs::remove_file(self.root.join(name))?;
            }
        }
        Ok(())
    }
}

/// The upload that `.upload_id-<upload>.…` or `.upload-<upload>.json` belongs to.
fn upload_of(name: &str) -> Option<&str> {
    match name.strip_prefix(".upload_id-") {
        Some(rest) => rest.split('.').next(),
        None => name.strip_prefix(".upload-")?.strip_suffix(".json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_lead_out_of_the_bucket_or_name_no_file_are_refused() {
        let layout = Layout::new(Path::new("/root"));
        for key in ["../other/x", "a/../../x", "/etc/passwd", "a//b", "a/", "./a", "", &"k".repeat(200)] {
            assert!(layout.object("bucket", key).is_err(), "{key}");
        }
        assert!(layout.object("bucket", "chunks/ab/0123.zst").is_ok());
    }

    #[test]
    fn a_sweep_takes_ended_uploads_and_keeps_live_ones_and_objects() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let keep = [
            layout.part("live", 1),
            layout.upload_attributes("b", "k", "live"),
            layout.upload("live"),
            layout.internal("b", "k"),
        ];
        let drop = [layout.part("ended", 1), layout.part_etag("ended", 1), layout.upload("ended"), layout.internal(STAGING, "x")];
        for path in keep.iter().chain(&drop) {
            std::fs::write(path, "x").unwrap();
        }
        layout.sweep().unwrap();
        assert!(keep.iter().all(|path| path.exists()) && drop.iter().all(|path| !path.exists()));
    }
}
