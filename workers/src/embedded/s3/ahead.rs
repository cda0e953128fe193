//! Joins the parts of uploads while others still arrive, so that completing one has little left to copy and to flush.
//!
//! Invariant: what was joined ahead is used only where it is exactly the first parts that the client names, by number and
//! `ETag`, and none of them was replaced while it was read; else the parts are joined anew.
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::commit::Staged;
use super::layout::Layout;
use super::multipart::Stored;

/// The first parts of an upload in one file.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) staged: Staged,
    file: File,
    /// `ETag`s of the parts in it, from part 1 on.
    etags: Vec<String>,
}

impl Joined {
    pub(super) fn new(layout: &Layout) -> io::Result<Self> {
        let staged = Staged::new(layout);
        Ok(Self { file: File::create(staged.object())?, staged, etags: Vec::new() })
    }

    /// Appends a part.
    pub(super) fn append(&mut self, part: &Stored) -> io::Result<()> {
        // On Linux `io::copy` between files is copy_file_range: no byte passes through us.
        let copied = io::copy(&mut File::open(&part.path)?, &mut self.file)?;
        if copied != part.bytes {
            return Err(io::Error::other(format!("part {} changed while it was joined", part.number)));
        }
        self.etags.push(part.etag.clone());
        Ok(())
    }

    /// How many of `parts` it holds; `None` if it holds anything else.
    pub(super) fn holds(&self, parts: &[Stored]) -> Option<usize> {
        let held = self.etags.len();
        let same = held <= parts.len()
            && parts.iter().zip(1..).zip(&self.etags).all(|((part, number), etag)| part.number == number && part.etag == *etag);
        same.then_some(held)
    }
}

/// The joining of one upload.
#[derive(Debug, Default)]
pub(super) struct Joining {
    joined: Option<Joined>,
    /// Somebody took it: what comes late does nothing.
    taken: bool,
}

/// What is joined so far, by upload. Forgotten by a restart, which only costs the time to join again.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    uploads: Mutex<HashMap<String, Arc<Mutex<Joining>>>>,
}

impl Ahead {
    /// The joining of an upload to which a part has come, for [`extend`].
    pub(super) fn of(&self, upload: &str) -> Arc<Mutex<Joining>> {
        Arc::clone(lock(&self.uploads).entry(upload.to_owned()).or_default())
    }

    /// What is joined of an upload that ends; waits for what is being joined.
    pub(super) fn take(&self, upload: &str) -> Option<Joined> {
        let entry = lock(&self.uploads).remove(upload)?;
        let mut joining = lock(&entry);
        joining.taken = true;
        joining.joined.take()
    }
}

/// Appends the parts that are there and next; blocks. Whatever fails leaves them to whoever completes the upload.
pub(super) fn extend(joining: &Mutex<Joining>, layout: &Layout, upload: &str, durable: bool) {
    let mut joining = lock(joining);
    if joining.taken {
        return;
    }
    if let Err(error) = append_known(&mut joining.joined, layout, upload, durable) {
        tracing::debug!(upload, %error, "parts are not joined ahead");
        joining.joined = None;
    }
}

fn append_known(joined: &mut Option<Joined>, layout: &Layout, upload: &str, durable: bool) -> io::Result<()> {
    loop {
        let next = joined.as_ref().map_or(0, |joined| joined.etags.len()) + 1;
        let next = i32::try_from(next).map_err(io::Error::other)?;
        let Some(part) = Stored::known(layout, upload, next)? else { break };
        let joined = match joined {
            Some(joined) => joined,
            None => joined.insert(Joined::new(layout)?),
        };
        joined.append(&part)?;
        if Stored::known(layout, upload, next)?.is_none_or(|again| again.etag != part.etag) {
            return Err(io::Error::other(format!("part {next} was replaced")));
        }
        // So that little is left for the end.
        if durable {
            joined.file.sync_data()?;
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
