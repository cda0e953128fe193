//! Which columns of which tables may leave the house, and in which order their rows are cut.
//!
//! Allow-list in two layers: the tables are named here, and a column that this file does not know stops the snapshot
//! until the operator's config includes or omits it. Columns are discovered because genuine databases differ by age.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// A table of the public snapshot.
#[derive(Debug, Clone, Copy)]
pub struct AllowedTable {
    /// Name in `public`.
    pub name: &'static str,
    /// Column holding the block height, for tables cut by height.
    pub height: Option<&'static str>,
    /// Columns of the original's first migrations: without them the database is not one of ours.
    required: &'static [&'static str],
    /// Columns that later migrations of the original add.
    known: &'static [&'static str],
    /// Total order of rows. `tx_index` is dropped where the column is missing. Text sorts by bytes (`C`), so that
    /// databases of different locales cut the same chunk.
    order: &'static [&'static str],
}

/// Tables cut by height, in load order (foreign keys point backwards).
pub const CHAIN_TABLES: [AllowedTable; 3] = [
    AllowedTable {
        name: "blocks",
        height: Some("height"),
        required: &["height", "hash", "parent_hash", "burn_block_height", "timestamp", "canonical", "created_at"],
        known: &["burn_block_hash", "index_block_hash"],
        order: &["height"],
    },
    AllowedTable {
        name: "transactions",
        height: Some("block_height"),
        required: &["tx_id", "block_height", "type", "sender", "status", "contract_id", "function_name", "raw_tx", "created_at"],
        known: &["tx_index", "function_args", "raw_result"],
        order: &["block_height", "tx_index", "tx_id"],
    },
    AllowedTable {
        name: "events",
        height: Some("block_height"),
        required: &["id", "tx_id", "block_height", "event_index", "type", "data", "created_at"],
        known: &[],
        order: &["block_height", "event_index", "tx_id", "id"],
    },
];

/// The progress row; its heights are replaced by the snapshot's.
pub const INDEX_PROGRESS: AllowedTable = AllowedTable {
    name: "index_progress",
    height: None,
    required: &["network", "last_indexed_block", "last_contiguous_block", "highest_seen_block", "updated_at"],
    known: &[],
    order: &["network"],
};

/// The original's migration bookkeeping, so that its services accept a restored database. May be absent.
pub const MIGRATION_TABLES: [AllowedTable; 2] = [
    AllowedTable { name: "kysely_migration", height: None, required: &["name", "timestamp"], known: &[], order: &["name"] },
    AllowedTable { name: "kysely_migration_lock", height: None, required: &["id", "is_locked"], known: &[], order: &["id"] },
];

/// What the operator decided about columns this program does not know, as `table.column`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ColumnRules {
    /// Publish these.
    pub include: Vec<String>,
    /// Leave these out.
    pub omit: Vec<String>,
}

/// A table as found, with the columns to publish in physical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// Name in `public`; of a table elsewhere schema, full stop and name.
    pub name: String,
    /// The schema, unless it is `public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Columns in physical order.
    pub columns: Vec<String>,
    /// Total order of rows.
    pub order: Vec<String>,
    /// Column holding the block height, if any.
    pub height: Option<String>,
}

/// A database whose schema cannot be published as it is.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// The table is not there.
    #[error(
        "table public.{table} is missing: this is not a Secondlayer database (an empty one is set up by `snapshots migrate`)"
    )]
    NoTable {
        /// Its name.
        table: String,
    },
    /// A needed column is not there.
    #[error(
        "column public.{table}.{column} is missing: run the indexer's own migrations, or check that DATABASE_URL names its database"
    )]
    NoColumn {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// A column nobody has decided about.
    #[error(
        "column public.{table}.{column} is not known to be public: add `{table}.{column}` to --include-columns to publish it, or to --omit-columns to leave it out"
    )]
    UnknownColumn {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// A column that must not be left out.
    #[error("column public.{table}.{column} has no default and may not be null, so a snapshot without it could not be restored")]
    CannotOmit {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// The catalog could not be read.
    #[error("cannot read the catalog")]
    Database(#[from] sqlx::Error),
}

/// Finds the shapes of all tables of the public snapshot: chain tables, progress, and migration tables where present.
///
/// # Errors
/// [`ColumnError`] when a table or column is missing or unknown.
pub async fn discover(conn: &mut PgConnection, rules: &ColumnRules) -> Result<Vec<TableShape>, ColumnError> {
    let mut shapes = Vec::new();
    for table in CHAIN_TABLES.iter().chain([&INDEX_PROGRESS]) {
        let found = columns_of(conn, table.name).await?;
        if found.is_empty() {
            return Err(ColumnError::NoTable { table: table.name.into() });
        }
        shapes.push(shape(table, found, rules)?);
    }
    for table in &MIGRATION_TABLES {
        let found = columns_of(conn, table.name).await?;
        if !found.is_empty() {
            shapes.push(shape(table, found, rules)?);
        }
    }
    Ok(shapes)
}

struct FoundColumn {
    name: String,
    must_be_given: bool,
}

async fn columns_of(conn: &mut PgConnection, table: &str) -> sqlx::Result<Vec<FoundColumn>> {
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "select attname::text, attnotnull and not atthasdef and attidentity = '' from pg_attribute
         where attrelid = to_regclass('public.' || quote_ident($1)) and attnum > 0 and not attisdropped order by attnum",
    )
    .bind(table)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(name, must_be_given)| FoundColumn { name, must_be_given }).collect())
}

fn shape(table: &AllowedTable, found: Vec<FoundColumn>, rules: &ColumnRules) -> Result<TableShape, ColumnError> {
    if let Some(column) = table.required.iter().find(|column| !found.iter().any(|f| f.name == **column)) {
        return Err(ColumnError::NoColumn { table: table.name.into(), column: (*column).into() });
    }
    let mut columns = Vec::new();
    for column in found {
        let full = format!("{}.{}", table.name, column.name);
        let required = table.required.contains(&column.name.as_str());
        if !required && rules.omit.contains(&full) {
            if column.must_be_given {
                return Err(ColumnError::CannotOmit { table: table.name.into(), column: column.name });
            }
        } else if required || table.known.contains(&column.name.as_str()) || rules.include.contains(&full) {
            columns.push(column.name);
        } else {
            return Err(ColumnError::UnknownColumn { table: table.name.into(), column: column.name });
        }
    }
    let order = table.order.iter().filter(|column| columns.iter().any(|c| c == *column)).map(|c| (*c).to_owned()).collect();
    Ok(TableShape { name: table.name.into(), schema: None, columns, order, height: table.height.map(str::to_owned) })
}

/// Quotes an SQL identifier.
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

impl TableShape {
    /// Schema and table, quoted.
    #[must_use]
    pub fn qualified(&self) -> String {
        let (schema, table) = self.place();
        if self.schema.is_none() { format!("public.{}", quote(table)) } else { format!("{}.{}", quote(schema), quote(table)) }
    }

    /// Schema and table, as the catalog has them.
    pub(crate) fn place(&self) -> (&str, &str) {
        let Some(schema) = self.schema.as_deref() else { return ("public", &self.name) };
        (schema, self.name.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&self.name))
    }

    /// `column, column, …`, quoted.
    pub fn column_list(&self) -> String {
        self.columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
    }

    /// Position of a column in each row of COPY text, from 0.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == column)
    }

    /// `order by` list. Text columns compare by bytes whatever the database's locale is.
    pub(crate) fn order_list(&self) -> String {
        let text = ["tx_id", "network", "name"];
        let column = |column: &String| {
            let collate = if text.contains(&column.as_str()) { " collate \"C\"" } else { "" };
            format!("{}{collate}", quote(column))
        };
        self.order.iter().map(column).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<FoundColumn> {
        names.iter().map(|name| FoundColumn { name: (*name).into(), must_be_given: false }).collect()
    }

    const EVENTS: &[&str] = &["id", "tx_id", "block_height", "event_index", "type", "data", "created_at"];

    #[test]
    fn an_unknown_column_refuses_until_it_is_included_or_omitted() {
        let names = [EVENTS, &["secret"]].concat();
        let table = &CHAIN_TABLES[2];
        let refused = shape(table, found(&names), &ColumnRules::default());
        assert!(matches!(refused, Err(ColumnError::UnknownColumn { column, .. }) if column == "secret"));
        let include = ColumnRules { include: vec!["events.secret".into()], omit: vec![] };
        assert_eq!(shape(table, found(&names), &include).unwrap().columns.len(), 8);
        let omit = ColumnRules { include: vec![], omit: vec!["events.secret".into()] };
        assert_eq!(shape(table, found(&names), &omit).unwrap().columns, EVENTS);
    }

    #[test]
    fn a_missing_column_is_named() {
        let refused = shape(&CHAIN_TABLES[2], found(&EVENTS[1..]), &ColumnRules::default());
        assert!(matches!(refused, Err(ColumnError::NoColumn { column, .. }) if column == "id"));
    }

    #[test]
    fn order_leaves_out_tx_index_where_the_database_is_older_than_it() {
        let names = ["tx_id", "block_height", "type", "sender", "status", "contract_id", "function_name", "raw_tx", "created_at"];
        let shape = shape(&CHAIN_TABLES[1], found(&names), &ColumnRules::default()).unwrap();
        assert_eq!(shape.order_list(), "\"block_height\", \"tx_id\" collate \"C\"");
    }
}
