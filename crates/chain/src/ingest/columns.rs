//! The columns that the chain tables of this database have: versions of the indexer differ.

use sqlx::{FromRow, PgConnection};

use super::IngestError;

/// What a block in hand can fill, in the order of the row sources in `rows`.
const BLOCK: [&str; 8] =
    ["height", "hash", "parent_hash", "burn_block_height", "timestamp", "canonical", "burn_block_hash", "index_block_hash"];
const TRANSACTION: [&str; 11] = [
    "block_height",
    "tx_id",
    "type",
    "sender",
    "status",
    "contract_id",
    "function_name",
    "raw_tx",
    "tx_index",
    "function_args",
    "raw_result",
];
const EVENT: [&str; 5] = ["block_height", "tx_id", "event_index", "type", "data"];
/// Columns every version has; without them nothing can be stored.
const NEEDED: [(&str, &[&str]); 3] =
    [("blocks", BLOCK.split_at(6).0), ("transactions", TRANSACTION.split_at(8).0), ("events", &EVENT)];

/// All columns of the chain tables, in physical order.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) blocks: Vec<String>,
    pub(super) transactions: Vec<String>,
    pub(super) events: Vec<String>,
}

#[derive(FromRow)]
struct Column {
    table_name: String,
    column_name: String,
    must_be_filled: bool,
}

impl Columns {
    /// Reads the catalog.
    pub(super) async fn discover(conn: &mut PgConnection) -> Result<Self, IngestError> {
        let all = read(conn).await?;
        for (table, needed) in NEEDED {
            let names = names(&all, table);
            if !needed.iter().all(|column| names.iter().any(|name| name == column)) {
                return Err(IngestError::NoTable(table.to_owned()));
            }
        }
        let known = |column: &Column| {
            let filled: &[&str] = match column.table_name.as_str() {
                "blocks" => &BLOCK,
                "transactions" => &TRANSACTION,
                _ => &EVENT,
            };
            filled.contains(&column.column_name.as_str())
        };
        if let Some(column) = all.iter().find(|column| column.must_be_filled && !known(column)) {
            return Err(IngestError::Column { table: column.table_name.clone(), column: column.column_name.clone() });
        }
        let [blocks, transactions, events] = ["blocks", "transactions", "events"].map(|table| names(&all, table));
        Ok(Self { blocks, transactions, events })
    }

    /// Columns of `blocks` that a block in hand fills.
    pub(super) fn block_fields(&self) -> Vec<&str> {
        fillable(&BLOCK, &self.blocks)
    }

    /// Columns of `transactions` that a block in hand fills.
    pub(super) fn transaction_fields(&self) -> Vec<&str> {
        fillable(&TRANSACTION, &self.transactions)
    }
}

fn fillable<'a>(can: &[&'a str], has: &[String]) -> Vec<&'a str> {
    can.iter().copied().filter(|column| has.iter().any(|name| name == column)).collect()
}

fn names(all: &[Column], table: &str) -> Vec<String> {
    all.iter().filter(|column| column.table_name == table).map(|column| column.column_name.clone()).collect()
}

async fn read(conn: &mut PgConnection) -> sqlx::Result<Vec<Column>> {
    sqlx::query_as(
        "select c.relname::text as table_name, a.attname::text as column_name,
                a.attnotnull and not a.atthasdef and a.attidentity = '' as must_be_filled
         from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'public'::regnamespace and c.relname in ('blocks', 'transactions', 'events')
             and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
         order by c.relname, a.attnum",
    )
    .fetch_all(conn)
    .await
}

/// A list of columns for SQL, each quoted and prefixed.
pub(super) fn quoted<S: AsRef<str>>(columns: &[S], prefix: &str) -> String {
    let quote = |name: &S| format!("{prefix}\"{}\"", name.as_ref().replace('"', "\"\""));
    columns.iter().map(quote).collect::<Vec<_>>().join(", ")
}
