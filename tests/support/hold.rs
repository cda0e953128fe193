//! Statements that wait until a test lets them go on: the moment between a step's work and its record.
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use super::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
/// Advisory locks of tests; each hold has its own.
static NEXT_KEY: AtomicI64 = AtomicI64::new(4_242);

/// Holds statements back. Ends with the connection that holds the lock, so with a crash of the server too.
pub(crate) struct Hold {
    pool: PgPool,
    key: i64,
    lock: PoolConnection<Postgres>,
    undo: &'static str,
}

impl Hold {
    /// Updates of `snapshots.step` wait for which `condition`, an expression over `old` and `new`, is true.
    pub(crate) async fn on(pool: &PgPool, condition: &str) -> Self {
        let made = format!(
            "create function snapshots.test_hold() returns trigger language plpgsql as $$ begin
                 if {condition} then perform pg_advisory_xact_lock(KEY); end if; return new; end $$;
             create trigger test_hold before update on snapshots.step for each row execute function snapshots.test_hold()"
        );
        Self::make(pool, &made, "drop trigger test_hold on snapshots.step; drop function snapshots.test_hold()").await
    }

    /// Definitions wait whose statement is like this: their work is done, and not committed.
    pub(crate) async fn on_definition(pool: &PgPool, like: &str) -> Self {
        let made = format!(
            "create schema test_hold;
             create function test_hold.wait() returns event_trigger language plpgsql as $$ begin
                 if current_query() ilike '{like}' then perform pg_advisory_xact_lock(KEY); end if; end $$;
             create event trigger test_hold on ddl_command_end execute function test_hold.wait()"
        );
        Self::make(pool, &made, "drop event trigger test_hold; drop schema test_hold cascade").await
    }

    async fn make(pool: &PgPool, made: &str, undo: &'static str) -> Self {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let mut lock = pool.acquire().await.unwrap();
        sqlx::query("select pg_advisory_lock($1)").bind(key).execute(&mut *lock).await.unwrap();
        let sql = made.replace("KEY", &key.to_string());
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
        Self { pool: pool.clone(), key, lock, undo }
    }

    /// The record of the success of `step` waits.
    pub(crate) async fn on_success(pool: &PgPool, step: &str) -> Self {
        Self::on(pool, &format!("new.name = '{step}' and new.state = 'succeeded'")).await
    }

    /// Waits until a statement waits.
    pub(crate) async fn reached(&self) {
        let sql = "select exists (select from pg_locks where locktype = 'advisory' and not granted and objid = $1::text::oid
                   and database = (select oid from pg_database where datname = current_database()))";
        wait_until(PATIENCE, "a statement is held", async || {
            sqlx::query_scalar(sql).bind(self.key.to_string()).fetch_one(&self.pool).await.unwrap()
        })
        .await;
    }

    /// Lets what waits go on, and holds nothing back any more.
    pub(crate) async fn release(mut self) {
        self.unlock().await;
        self.remove().await;
    }

    /// Ends statements that wait instead, as the server does when it finds their clients dead, and holds nothing back any more.
    pub(crate) async fn abandon(mut self) {
        let sql = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted
                   and objid = $1::text::oid and database = (select oid from pg_database where datname = current_database())";
        sqlx::query(sql).bind(self.key.to_string()).execute(&self.pool).await.unwrap();
        // This waits for what was ended: nothing may slip through when the lock goes.
        self.remove().await;
        self.unlock().await;
    }

    async fn unlock(&mut self) {
        sqlx::query("select pg_advisory_unlock($1)").bind(self.key).execute(&mut *self.lock).await.unwrap();
    }

    async fn remove(&self) {
        sqlx::raw_sql(self.undo).execute(&self.pool).await.unwrap();
    }
}
