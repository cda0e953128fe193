//! A chain that grows when a test says so: blocks above a height wait in a schema of their own.
use sqlx::PgPool;

use super::service::{Site, site};

const TABLES: [(&str, &str); 3] = [("blocks", "height"), ("transactions", "block_height"), ("events", "block_height")];

/// A site with a synthetic chain of small blocks up to `height`, which can grow to `blocks`. Its highest block is final at once.
pub(crate) async fn growing_site(blocks: u64, height: u64) -> Site {
    let site = site().await.with_flags(&["--confirmations", "0"]);
    let pool = site.database.pool().await;
    chain::migrate(&pool).await.unwrap();
    let profile = chain::synthetic::Profile::Quiet;
    let spec = chain::synthetic::Spec { blocks, seed: 7, profile, network: "mainnet".into() };
    chain::synthetic::load(&pool, &spec, |_| {}).await.unwrap();
    run(&pool, "create schema waiting").await;
    for (table, column) in TABLES {
        run(&pool, &format!("create table waiting.{table} as select * from public.{table} where {column} > {height}")).await;
    }
    for (table, column) in TABLES.iter().rev() {
        run(&pool, &format!("delete from public.{table} where {column} > {height}")).await;
    }
    run(&pool, "vacuum analyze public.blocks, public.transactions, public.events").await;
    pool.close().await;
    site
}

/// Lets the chain grow to `height`.
pub(crate) async fn grow(pool: &PgPool, height: u64) {
    for (table, column) in TABLES {
        run(
            pool,
            &format!(
                "with moved as (delete from waiting.{table} where {column} <= {height} returning *)
                 insert into public.{table} select * from moved"
            ),
        )
        .await;
    }
}

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}
