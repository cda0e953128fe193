//! Who the database server runs as.
//!
//! PostgreSQL refuses to run as root, so under root its programs run as `postgres` or else `nobody`, in
//! directories they own. Invariant: nothing here changes the identity of our own process, and nothing it makes
//! is readable by other users.
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Uid, User};
use tokio::process::Command;

/// Accounts tried under root, in order.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Why the server's account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Root, but no account to drop to.
    #[error(
        "PostgreSQL does not run as root and this machine has neither a `postgres` nor a `nobody` account: \
         create one, or run this service as an ordinary user"
    )]
    NoAccount,
    /// A parent of the data directory is closed to the account.
    #[error(
        "{} cannot be entered by the account `{account}` that PostgreSQL runs as: choose a --data-dir outside of it \
         (for example /var/lib/snapshots), or `chmod o+x {}`",
        dir.display(), dir.display()
    )]
    Closed {
        /// The outermost directory that cannot be entered.
        dir: PathBuf,
        /// The account's name.
        account: String,
    },
    /// A directory cannot be made, owned or protected.
    #[error("cannot prepare {}: check its owner and rights, and that its disk is not full", path.display())]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// The account that database programs run as; ourselves unless we are root.
#[derive(Debug, Clone)]
pub struct Account {
    other: Option<User>,
}

impl Account {
    /// Ourselves, or under root the first of `postgres` and `nobody` that exists.
    pub fn choose() -> Result<Self, AccountError> {
        if !Uid::effective().is_root() {
            return Ok(Self { other: None });
        }
        ACCOUNTS
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self { other: Some(user) })
            .ok_or(AccountError::NoAccount)
    }

    /// User id that programs run with.
    pub fn uid(&self) -> u32 {
        self.other.as_ref().map_or_else(Uid::effective, |user| user.uid).as_raw()
    }

    /// A command that will run as this account, with no `PG*` variable of ours and in the C locale, so that what
    /// it prints can be read. Its standard input is empty.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = &self.other {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("HOME", "/");
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command
    }

    /// Makes `dir` if it is missing, gives it to the account and closes it to everyone else (0700).
    pub fn own(&self, dir: &Path) -> Result<(), AccountError> {
        let prepare = |source| AccountError::Prepare { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(prepare)?;
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(prepare)?;
        self.give(dir).map_err(prepare)
    }

    /// Gives a file to the account.
    pub fn give(&self, path: &Path) -> std::io::Result<()> {
        match &self.other {
            Some(user) => chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
            None => Ok(()),
        }
    }

    /// Checks, by trying, that the account can enter `dir`; names the outermost directory that it cannot.
    pub async fn check_can_enter(&self, dir: &Path) -> Result<(), AccountError> {
        let Some(user) = &self.other else { return Ok(()) };
        if self.can_enter(dir).await {
            return Ok(());
        }
        let mut parents: Vec<&Path> = dir.ancestors().collect();
        parents.reverse();
        for parent in parents {
            if !self.can_enter(parent).await {
                return Err(AccountError::Closed { dir: parent.to_owned(), account: user.name.clone() });
            }
        }
        Ok(())
    }

    async fn can_enter(&self, dir: &Path) -> bool {
        self.command(Path::new("/bin/sh"))
            .args(["-c", "cd -- \"$1\"", "sh"])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .is_ok_and(|status| status.success())
    }
}
