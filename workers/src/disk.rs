//! What is free on the disks of this machine.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Bytes that are free for users where `path` is; `None` where the system does not say.
pub(crate) fn free_at(path: &Path) -> Option<u64> {
    let stat = statvfs(path).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}
