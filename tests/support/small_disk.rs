//! A disk that a test can fill.
use std::path::Path;
use std::process::Command;

/// A small disk; gone with the test.
pub(crate) struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Of so many MiB; `None` where mounting is not allowed.
    pub(crate) fn mount(path: &'a Path, size: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    /// Takes all the room there is.
    pub(crate) fn fill(&self) {
        let full = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(self.0.join("filler")).unwrap());
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    /// Leaves a little room.
    pub(crate) fn fill_but(&self, bytes: u64) {
        self.fill();
        let filler = std::fs::File::options().write(true).open(self.0.join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - bytes).unwrap();
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
