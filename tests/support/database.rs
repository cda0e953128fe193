//! A database per test.
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;
use workers::embedded::postgres::EmbeddedPostgres;

use super::servers::{postgres, runtime};

/// A new, empty database; dropped, connections and all, when this is.
pub(crate) struct TestDatabase {
    name: String,
    url: String,
    admin_url: String,
}

/// Makes an empty database on the private server.
pub(crate) async fn database() -> TestDatabase {
    TestDatabase::on(postgres().await).await
}

impl TestDatabase {
    /// Makes an empty database on a server.
    pub(super) async fn on(server: &EmbeddedPostgres) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        server.create_database(&name).await.unwrap();
        Self { url: server.url_of(&name), admin_url: server.url_of("postgres"), name }
    }

    /// Connection URL, for sqlx and libpq's tools.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Name of the database.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A pool of up to 16 connections.
    pub(crate) async fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(16).connect(&self.url).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let url = std::mem::take(&mut self.admin_url);
        // Best effort: the process's end takes the whole server away.
        runtime().spawn(async move {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
            connection.close().await
        });
    }
}
