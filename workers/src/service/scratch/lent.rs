//! Databases on a server that the operator lends (`SNAPSHOTS_DRILL_DATABASE_URL`).
//!
//! Invariant: as long as a drill lives, a connection bears the name that its databases begin with (`application_name`, which every
//! role sees of every database); a database whose name nobody bears is a killed drill's and goes with the next one.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::runtime::Handle;
use uuid::Uuid;
use workflows::scratch::{Parts, Scratch, ScratchError, ScratchGuard, ScratchPlaces};

use super::directory;
use crate::disk::free_at;
use crate::embedded::data_dir::DataDir;

/// How the names of all databases of drills begin; then twelve hex digits for the drill, and what it is for.
const PREFIX: &str = "snapshots_drill_";

/// Makes databases on a server.
pub(super) struct LentServer {
    url: String,
    parent: PathBuf,
}

impl LentServer {
    pub(super) fn new(url: String, parent: PathBuf) -> Self {
        Self { url, parent }
    }

    async fn begin(&self) -> Result<Scratch, ScratchError> {
        let parent = self.parent.clone();
        let made = tokio::task::spawn_blocking(move || directory(&parent)).await;
        let dir = made.map_err(|panic| ScratchError::place("make a directory", panic))??;
        let drill = Uuid::new_v4().simple().to_string();
        let prefix = format!("{PREFIX}{}_", &drill[..12]);
        let cannot = |source| ScratchError::Database { doing: "take away what killed drills left".into(), source };
        let mut holder = hold(&self.url, &prefix).await.map_err(cannot)?;
        sweep(&mut holder).await.map_err(cannot)?;
        let files = dir.path().to_owned();
        let guard = Box::new(Lent { url: self.url.clone(), prefix: prefix.clone(), held: Some((holder, dir)) });
        Scratch::new(Parts { server: self.url.clone(), prefix, dir: files, shares_disk: false, free_at, guard })
    }
}

impl ScratchPlaces for LentServer {
    fn open(&self) -> BoxFuture<'_, Result<Scratch, ScratchError>> {
        self.begin().boxed()
    }
}

async fn sweep(conn: &mut PgConnection) -> sqlx::Result<()> {
    for name in databases(conn, PREFIX).await? {
        let Some(prefix) = prefix_of(&name) else { continue };
        if !is_held(conn, &prefix).await? {
            tracing::warn!(database = name, "dropping what a killed drill left");
            drop_database(conn, &name).await?;
        }
    }
    Ok(())
}

/// What a drill's databases begin with, by the name of one; `None` for a database that no drill made.
fn prefix_of(name: &str) -> Option<String> {
    let (drill, what) = name.strip_prefix(PREFIX)?.split_once('_')?;
    let ours = drill.len() == 12 && drill.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    (ours && matches!(what, "stock" | "own")).then(|| format!("{PREFIX}{drill}_"))
}

async fn databases(conn: &mut PgConnection, prefix: &str) -> sqlx::Result<Vec<String>> {
    let sql = "select datname::text from pg_database where starts_with(datname::text, $1) order by 1";
    sqlx::query_scalar(sql).bind(prefix).fetch_all(conn).await
}

/// A connection that bears the name, however long nothing is asked of it.
async fn hold(url: &str, prefix: &str) -> sqlx::Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    let mut conn = PgConnection::connect_with(&options.application_name(prefix)).await?;
    sqlx::raw_sql("set idle_session_timeout = 0").execute(&mut conn).await?;
    Ok(conn)
}

async fn is_held(conn: &mut PgConnection, prefix: &str) -> sqlx::Result<bool> {
    let sql = "select exists (select from pg_stat_activity where application_name = $1)";
    sqlx::query_scalar(sql).bind(prefix).fetch_one(conn).await
}

/// Its name has nothing in it that needs quotes, or is quoted.
async fn drop_database(conn: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let statement = format!("drop database if exists {} with (force)", snapshot::columns::quote(name));
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(conn).await.map(drop)
}

/// The databases of one drill.
struct Lent {
    url: String,
    prefix: String,
    held: Option<(PgConnection, DataDir)>,
}

async fn drop_all(url: &str, prefix: &str) -> sqlx::Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    for name in databases(&mut conn, prefix).await? {
        drop_database(&mut conn, &name).await?;
    }
    conn.close().await
}

impl ScratchGuard for Lent {
    fn close(mut self: Box<Self>) -> BoxFuture<'static, Result<(), ScratchError>> {
        async move {
            let held = self.held.take();
            let dropped = drop_all(&self.url, &self.prefix).await;
            dropped.map_err(|source| ScratchError::Database { doing: "drop databases".into(), source })?;
            let Some((holder, dir)) = held else { return Ok(()) };
            drop(holder.close().await);
            let cannot = "take the scratch directory away";
            let closed = tokio::task::spawn_blocking(move || dir.close()).await;
            closed.map_err(|panic| ScratchError::place(cannot, panic))?.map_err(|error| ScratchError::place(cannot, error))
        }
        .boxed()
    }
}

impl Drop for Lent {
    /// Not closed: the drill was dropped in the middle. The next one would find them, but that may be tomorrow.
    fn drop(&mut self) {
        let (Some(held), Ok(runtime)) = (self.held.take(), Handle::try_current()) else { return };
        let (url, prefix) = (std::mem::take(&mut self.url), std::mem::take(&mut self.prefix));
        runtime.spawn(async move {
            if let Err(error) = drop_all(&url, &prefix).await {
                tracing::warn!(%error, "databases of a drill are left for the next one to drop");
            }
            drop(held);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::prefix_of;

    #[test]
    fn only_a_name_that_a_drill_gives_is_a_drills() {
        assert_eq!(prefix_of("snapshots_drill_0123456789ab_own").as_deref(), Some("snapshots_drill_0123456789ab_"));
        for name in [
            "snapshots_drill_results",
            "snapshots_drill_0123456789ab",
            "snapshots_drill_0123456789ab_mine",
            "snapshots_drill_0123456789AB_own",
        ] {
            assert_eq!(prefix_of(name), None, "{name}");
        }
    }
}
