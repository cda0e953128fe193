//! The private PostgreSQL server: made, adopted, guarded and taken away.
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::support;

#[tokio::test]
async fn each_test_gets_a_database_that_sqlx_and_psql_reach_by_the_same_url() {
    let database = support::database().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query("create table here (id int)").execute(&mut connection).await.unwrap();
    let output = Command::new(support::pg_bin().join("psql"))
        .args(["-X", "-At", "-d", database.url(), "-c", "select current_database(), count(*) from here"])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{}|0", database.name()));
    let other = support::database().await;
    let mut connection = PgConnection::connect(other.url()).await.unwrap();
    assert!(sqlx::query("select from here").execute(&mut connection).await.is_err());
}
