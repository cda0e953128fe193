//! A Postgres server of one test, which may crash without disturbing others.
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workers::embedded::postgres::{Durability, EmbeddedPostgres, PostgresOptions};

use super::database::TestDatabase;
use super::home::{Home, home};
use super::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that keeps what it has committed.
pub(crate) struct OwnPostgres {
    server: EmbeddedPostgres,
    home: Home,
}

/// Starts one.
pub(crate) async fn own_postgres() -> OwnPostgres {
    let home = home();
    OwnPostgres { server: start(&home).await, home }
}

async fn start(home: &Home) -> EmbeddedPostgres {
    let dir = home.path().join("postgres");
    EmbeddedPostgres::start(PostgresOptions { durability: Durability::Durable, ..PostgresOptions::new(dir) }).await.unwrap()
}

impl OwnPostgres {
    /// A new, empty database on it.
    pub(crate) async fn database(&self) -> TestDatabase {
        TestDatabase::on(&self.server).await
    }

    /// Ends it as `pg_ctl stop -m immediate` does: every connection is cut, nothing is flushed. Its clients are refused from
    /// then on, as they are by a host without a server.
    pub(crate) async fn crash(&self) {
        let lines = std::fs::read_to_string(self.home.pid_file()).unwrap();
        let postmaster = Pid::from_raw(lines.lines().next().unwrap().parse().unwrap());
        kill(postmaster, Signal::SIGQUIT).unwrap();
        wait_until(PATIENCE, "the server is gone", async || kill(postmaster, None).is_err()).await;
        // A stopped server takes its socket away; a socket nobody listens on refuses, as an address over TCP does.
        drop(UnixListener::bind(self.server.socket_dir().join(".s.PGSQL.5432")).unwrap());
    }

    /// Starts it again; it recovers from its log.
    pub(crate) async fn restart(&mut self) {
        self.server = start(&self.home).await;
    }
}
