//! What making a database the control database leaves alone, and what its pool hands out.
use engine::{Catalog, Client, Ctx, StartRun, StepError, Workflow};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::engine_support::Bench;
use crate::support::database;

async fn noop(_: Ctx<()>, input: Value) -> Result<Value, StepError> {
    Ok(input)
}

fn line() -> Vec<Workflow<()>> {
    vec![Workflow::named("line", 1).step("a", noop)]
}

#[tokio::test]
async fn setting_up_somebody_elses_database_leaves_its_public_schema_alone() {
    let bench = Bench::new(line).await;
    let sql = "select count(*) from pg_depend d join pg_namespace n on n.oid = d.refobjid \
         where d.refclassid = 'pg_namespace'::regclass and n.nspname = 'public'";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&bench.pool).await.unwrap(), 0);
    let (again, and_again) = tokio::join!(engine::migrate(&bench.pool), engine::migrate(&bench.pool));
    again.unwrap();
    and_again.unwrap();
}

#[tokio::test]
async fn a_database_that_has_the_extensions_in_public_already_serves_too() {
    let database = database().await;
    let plain = PgPool::connect(database.url()).await.unwrap();
    for extension in ["hstore", "pgcrypto"] {
        let sql = format!("create extension {extension} schema public");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&plain).await.unwrap();
    }
    let pool = engine::control_pool(database.url(), 8).await.unwrap();
    engine::migrate(&pool).await.unwrap();
    let client = Client::new(pool, Catalog::of(&line()).unwrap());
    client.start(&StartRun::new("line", json!(1))).await.unwrap();
}

#[tokio::test]
async fn a_connection_left_inside_a_transaction_is_not_used_again() {
    let database = database().await;
    let pool = engine::control_pool(database.url(), 1).await.unwrap();
    sqlx::raw_sql("create table kept (n integer)").execute(&pool).await.unwrap();
    let mut left = pool.acquire().await.unwrap();
    sqlx::raw_sql("begin").execute(&mut *left).await.unwrap();
    drop(left);
    sqlx::query("insert into kept values (1)").execute(&pool).await.unwrap();
    pool.close().await;
    let again = PgPool::connect(database.url()).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>("select count(*) from kept").fetch_one(&again).await.unwrap(), 1);
}
