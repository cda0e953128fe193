//! What the `full` profile holds: every table of the indexed database that is not ours, as it was at one moment.
//!
//! Not an allow-list: a table that a later migration adds is part of it without anybody's doing, because without it the lost
//! database would not come back. That is why nothing of it is ever published.

use sqlx::{PgConnection, Postgres, Transaction};

use crate::columns::{TableShape, quote};
use crate::cut::begin_export;
use crate::manifest::SequenceValue;

/// Schemas of this program: what is in them is made anew, or belongs to the service and not to the chain.
pub const OURS: [&str; 3] = ["snapshots", "apalis", "snapshots_restore"];

/// The chain as it stood.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Tip {
    /// Lowest block.
    pub first: i64,
    /// Highest canonical block.
    pub height: i64,
    /// Its hash.
    pub hash: String,
    /// Its time, seconds since 1970.
    pub timestamp: i64,
    /// Its Bitcoin height.
    pub burn_block_height: i64,
    /// Heights between, without a canonical block: nothing is refused for it, and a restore has as many.
    pub gaps: i64,
    /// Canonical blocks that name another parent than the one below.
    pub broken_links: i64,
}

/// Begins the one transaction in which all is read, and exports what it sees, so that `pg_dump` sees the same.
///
/// # Errors
/// The database's. A role that row security would show a part of the rows is refused when it reads them.
pub async fn begin(conn: &mut PgConnection) -> sqlx::Result<(Transaction<'_, Postgres>, String)> {
    let mut tx = begin_export(conn).await?;
    sqlx::raw_sql("set local row_security = off").execute(&mut *tx).await?;
    let exported = sqlx::query_scalar("select pg_catalog.pg_export_snapshot()").fetch_one(&mut *tx).await?;
    Ok((tx, exported))
}

/// Every table with rows of its own outside of our schemas and of extensions, by name.
///
/// # Errors
/// The database's.
pub async fn tables(conn: &mut PgConnection) -> sqlx::Result<Vec<TableShape>> {
    let rows: Vec<(String, String, Vec<String>)> = sqlx::query_as(
        "select n.nspname::text, c.relname::text, array_agg(a.attname::text order by a.attnum)
         from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
         where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
            and n.nspname <> all($1)
            and not exists (select from pg_catalog.pg_depend d
                            where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
         group by n.nspname, c.relname order by n.nspname, c.relname",
    )
    .bind(&OURS[..])
    .fetch_all(conn)
    .await?;
    let shape = |(schema, table, columns): (String, String, Vec<String>)| {
        let elsewhere = schema != "public";
        let name = if elsewhere { format!("{schema}.{table}") } else { table };
        TableShape { name, schema: elsewhere.then_some(schema), columns, order: Vec::new(), height: None }
    };
    Ok(rows.into_iter().map(shape).collect())
}

/// Where every sequence outside of our schemas stands. Sequences know no transactions: one may be ahead of the rows, never behind.
///
/// # Errors
/// The database's.
pub async fn sequences(conn: &mut PgConnection) -> sqlx::Result<Vec<SequenceValue>> {
    let names: Vec<(String, String)> = sqlx::query_as(
        "select n.nspname::text, c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> all($1)
         order by n.nspname, c.relname",
    )
    .bind(&OURS[..])
    .fetch_all(&mut *conn)
    .await?;
    let mut values = Vec::new();
    for (schema, sequence) in names {
        let name = format!("{}.{}", quote(&schema), quote(&sequence));
        let sql = format!("select $1::text as name, last_value, is_called from {name}");
        values.push(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&name).fetch_one(&mut *conn).await?);
    }
    Ok(values)
}

/// The highest block, or nothing where there is none.
///
/// # Errors
/// The database's.
pub async fn tip(conn: &mut PgConnection) -> sqlx::Result<Option<Tip>> {
    sqlx::query_as(
        "select first, height, hash, timestamp, burn_block_height, height - first + 1 - counted as gaps, broken_links
         from public.blocks, (select min(height) as first, count(*) filter (where canonical) as counted from public.blocks) b,
              (select count(*) as broken_links
               from (select parent_hash, lag(hash) over (order by height) as below from public.blocks where canonical) l
               where below <> parent_hash) c
         where canonical order by height desc limit 1",
    )
    .fetch_optional(conn)
    .await
}
