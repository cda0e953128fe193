//! Gives each test its own database and bucket, on servers private to the test process.
//!
//! Invariant: nothing outlives the process. The servers live in a runtime on a thread of their own, since each
//! test brings its own runtime; the data directory is ephemeral, so its watchdog ends and deletes everything.
mod bucket;
mod cli;
mod database;
mod exposition;
mod fault_proxy;
mod files;
mod flaky;
mod growing;
mod hold;
mod home;
mod ledger;
mod own_postgres;
mod proxy;
mod receiver;
mod runbook;
mod servers;
mod service;
mod small_disk;
mod stock;
mod tenants;
mod vault;
mod wait;

pub(crate) use bucket::{TestBucket, bucket};
pub(crate) use cli::{Ran, bare_command, run};
pub(crate) use database::{TestDatabase, database};
pub(crate) use exposition::Exposition;
pub(crate) use fault_proxy::{Asked, Fault, FaultProxy};
pub(crate) use files::{pg_bin, psql_file, shared_data};
pub(crate) use flaky::FlakyServer;
pub(crate) use growing::{
    changed, counted, cut, cut_unpromoted, equals_source, grow, growing_site, names, repair, until_counted,
};
pub(crate) use hold::Hold;
pub(crate) use home::{Home, home};
pub(crate) use ledger::{attempts_of, latest, ledger_is_true, one_whole_snapshot, whole};
pub(crate) use own_postgres::own_postgres;
pub(crate) use proxy::Proxy;
pub(crate) use receiver::{Received, Receiver};
pub(crate) use runbook::runbook;
pub(crate) use service::{ServiceProcess, Site, published, site, site_with_chain, site_with_chain_on};
pub(crate) use small_disk::SmallDisk;
pub(crate) use stock::extract;
pub(crate) use tenants::{CANARIES, add_tenants};
pub(crate) use vault::{Vault, objects, vault};
pub(crate) use wait::wait_until;
