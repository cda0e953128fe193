//! The thread that reads rows: its work ends with whoever asked for it, and its connections with it.

use std::future::pending;
use std::time::Duration;

use snapshot::cut::ReadThread;
use sqlx::PgPool;
use tokio::sync::oneshot;

use crate::support::{database, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Connections to this database besides `pool`'s own, which has one.
async fn others(pool: &PgPool) -> i64 {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// The test's only connection, and a thread that is like it.
async fn beside() -> (crate::support::TestDatabase, PgPool, ReadThread) {
    let database = database().await;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let thread = ReadThread::start(&pool).unwrap();
    (database, pool, thread)
}

#[tokio::test]
async fn work_runs_on_connections_of_the_threads_own_which_close_on_request_and_with_its_last_clone() {
    let (_database, pool, thread) = beside().await;
    let name = thread.run(|_| async { std::thread::current().name().map(str::to_owned) }).await;
    assert_eq!(name.as_deref(), Some("reader"));
    let pid = |pool: PgPool| async move { sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&pool).await };
    let theirs = thread.run(pid).await.unwrap();
    assert_ne!(theirs, pid(pool.clone()).await.unwrap());
    assert_eq!(others(&pool).await, 1);
    thread.close().await;
    wait_until(PATIENCE, "its connection is closed", async || others(&pool).await == 0).await;

    let again = ReadThread::start(&pool).unwrap();
    again.clone().run(pid).await.unwrap();
    assert_eq!(others(&pool).await, 1);
    drop(again);
    wait_until(PATIENCE, "its connection went with it", async || others(&pool).await == 0).await;
}

#[tokio::test]
async fn work_that_nobody_waits_for_any_more_is_dropped() {
    let (_database, pool, thread) = beside().await;
    let (alive, dropped) = oneshot::channel::<()>();
    let (told, begun) = oneshot::channel();
    let waiting = thread.run(|_| async move {
        let _alive = alive;
        told.send(()).unwrap();
        pending::<()>().await;
    });
    tokio::select! {
        () = waiting => unreachable!("it never ends"),
        told = begun => told.unwrap(),
    }
    tokio::time::timeout(PATIENCE, dropped).await.expect("the work goes on").unwrap_err();
    assert_eq!(thread.run(|_| async { 7 }).await, 7, "the thread is there for others");
    pool.close().await;
}

#[tokio::test]
#[should_panic(expected = "among the rows")]
async fn a_panic_among_rows_is_the_callers() {
    let (_database, _pool, thread) = beside().await;
    thread.run(|_| async { panic!("among the rows") }).await
}
