//! Gives each test its own database and bucket, on servers private to the test process.
//!
//! Invariant: nothing outlives the process. The servers live in a runtime on a thread of their own, since each
//! test brings its own runtime; the data directory is ephemeral, so its watchdog ends and deletes everything.
#![expect(dead_code, reason = "each helper serves some of the tests; none uses all of them")]
mod database;
mod files;
mod servers;
mod wait;

#[expect(unused_imports, reason = "see above")]
pub(crate) use database::{TestDatabase, database};
#[expect(unused_imports, reason = "see above")]
pub(crate) use files::{pg_bin, psql_file, shared_data, snapshots_binary};
#[expect(unused_imports, reason = "see above")]
pub(crate) use wait::wait_until;
