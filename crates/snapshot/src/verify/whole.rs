//! What must be so before rows are worth counting: the restore came to its end, and its tables and columns are there.

use std::collections::HashSet;

use sqlx::PgPool;

use super::Report;
use crate::columns::TableShape;
use crate::load::{Held, State};
use crate::manifest::Manifest;

/// Checks that what made a database has come to its end, and that every table of the manifest is there with its columns. Where that does
/// not hold, rows cannot be read, or say nothing yet.
///
/// # Errors
/// The database's; what does not hold is in the report instead.
pub async fn whole(pool: &PgPool, manifest: &Manifest, held: Option<&Held>) -> sqlx::Result<Report> {
    let mut report = Report::default();
    if let Some(held) = held {
        ended(held, &mut report);
    }
    if report.checks.iter().all(|check| check.holds) {
        columns(pool, manifest, &mut report).await?;
    }
    Ok(report)
}

fn ended(held: &Held, report: &mut Report) {
    let (what, command) = match held.state {
        State::Loading | State::Complete => ("restore", "snapshots restore"),
        State::Updating => ("update", "snapshots update"),
    };
    let again = || format!("it has not: run `{command}` again, which goes on where it was");
    let found = if held.state == State::Complete { Ok(()) } else { Err(again()) };
    report.expect(format!("the {what} of {} has come to its end", held.manifest.path()), found);
}

async fn columns(pool: &PgPool, manifest: &Manifest, report: &mut Report) -> sqlx::Result<()> {
    let there: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "select n.nspname::text, c.relname::text, a.attname::text
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relkind in ('r', 'p', 'm') and n.nspname <> all ('{pg_catalog,information_schema}')",
    )
    .fetch_all(pool)
    .await?;
    let tables: HashSet<(&str, &str)> = there.iter().map(|(schema, table, _)| (schema.as_str(), table.as_str())).collect();
    let columns: HashSet<(&str, &str, &str)> =
        there.iter().filter_map(|(schema, table, column)| Some((schema.as_str(), table.as_str(), column.as_deref()?))).collect();
    let lacks = |shape: &TableShape| {
        let (schema, table) = shape.place();
        if !tables.contains(&(schema, table)) {
            return vec![format!("table {schema}.{table} is missing")];
        }
        let missing = shape.columns.iter().filter(|column| !columns.contains(&(schema, table, column.as_str())));
        missing.map(|column| format!("column {schema}.{table}.{column} is missing")).collect()
    };
    let missing: Vec<String> = manifest.shapes.iter().flat_map(lacks).collect();
    let found = if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) };
    report.expect(format!("all {} tables are there with their columns", manifest.shapes.len()), found);
    Ok(())
}
