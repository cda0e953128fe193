//! The newest snapshot of each network that this user has met, so that being led back to an older one is noticed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::manifest::{Pointer, Profile};

/// A small file in the user's data directory. A file that is lost only costs the memory of what was seen; one that is there
/// and cannot be read is an error, or whoever can damage it could lead its owner back without a word.
#[derive(Debug, Clone)]
pub struct Seen {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// Highest sequence by network and trusted key. Another publisher, with other keys, counts for itself; a sequence is noted
    /// under every key trusted at that moment, so that a rotation does not wipe the memory.
    newest: BTreeMap<String, u64>,
}

/// Under which a pointer is remembered: each profile counts for itself.
fn line(pointer: &Pointer, key: &str) -> String {
    match pointer.profile {
        Profile::Public => format!("{} {key}", pointer.network),
        profile => format!("{profile} {} {key}", pointer.network),
    }
}

impl Seen {
    /// `seen.json` in a directory, which is made when something is first remembered.
    #[must_use]
    pub fn in_directory(dir: &Path) -> Self {
        Self { path: dir.join("seen.json") }
    }

    /// The highest sequence met of the pointer's network and profile, or 0.
    ///
    /// # Errors
    /// The file system's; a file that is not ours.
    pub fn newest(&self, pointer: &Pointer, trusted: &[String]) -> std::io::Result<u64> {
        let content = self.read()?;
        let known = trusted.iter().filter_map(|key| content.newest.get(&line(pointer, key)).copied());
        Ok(known.max().unwrap_or_default())
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers a pointer that was believed.
    ///
    /// # Errors
    /// The file system's.
    pub fn remember(&self, pointer: &Pointer, trusted: &[String]) -> std::io::Result<()> {
        let mut content = self.read()?;
        let mut news = false;
        for key in trusted {
            let newest = content.newest.entry(line(pointer, key)).or_default();
            news |= *newest < pointer.sequence;
            *newest = pointer.sequence.max(*newest);
        }
        if !news {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let draft = self.path.with_extension("json.new");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(&content)?)?;
        // A machine that loses its power must not leave an empty file under the name: nothing would be believed any more.
        file.sync_all()?;
        std::fs::rename(draft, &self.path)
    }

    fn read(&self) -> std::io::Result<Content> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(error),
        }
    }
}
