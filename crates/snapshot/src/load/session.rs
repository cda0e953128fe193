//! Connections that load: settings under which COPY text and definitions mean what they meant at the source.

use std::str::FromStr;
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `pg_restore` sets, and: no wait for the disk at each commit. A chunk and its line in the ledger are lost together or not
/// at all, so a crash of the server costs time only; the last commit of a restore waits.
const SETTINGS: &str = "
    set search_path = ''; set client_encoding = 'UTF8'; set standard_conforming_strings = on; set check_function_bodies = false;
    set xmloption = content; set client_min_messages = warning; set row_security = off; set default_table_access_method = heap;
    set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; set timezone = 'UTC'; set bytea_output = 'hex';
    set lock_timeout = 0; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set idle_session_timeout = 0;
    set synchronous_commit = off";

/// Pages that a load leaves behind go to the disk meanwhile, not all at once at the next checkpoint. Not every system can.
const FLUSH: &str = "
    select pg_catalog.set_config(name, least(256, max_val::bigint)::text, false) from pg_catalog.pg_settings
    where name = 'backend_flush_after'";

/// A server that builds an index sees that its client was killed, and the next one need not wait for the end of the build. Not every
/// system can.
const CLIENT_CHECK: &str = "set client_connection_check_interval = '5s'";

/// A pool of `jobs` connections, and one that holds the lock, on the database to restore into.
///
/// # Errors
/// A bad URL, or a database that does not answer within ten seconds.
pub async fn connect(url: &str, jobs: usize) -> sqlx::Result<PgPool> {
    let options = PgConnectOptions::from_str(url)?.application_name("snapshots restore");
    // A pool waits for a server that is not there, and then cannot say why it was not.
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within ten seconds"));
    let probe = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await.map_err(late)??;
    probe.close().await?;
    let connections = u32::try_from(jobs).unwrap_or(u32::MAX).saturating_add(2);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(600))
        .after_connect(|conn, _| {
            Box::pin(async move {
                conn.execute(SETTINGS).await?;
                let _ = conn.execute(CLIENT_CHECK).await;
                conn.execute(FLUSH).await.map(drop)
            })
        })
        .connect_with(options)
        .await
}
