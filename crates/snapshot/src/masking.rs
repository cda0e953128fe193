//! What of the tenants' rows may be in a database that is not production: by rule, and nothing unless a rule says so.
//!
//! A rules file (TOML) names tables of which rows stay (`keep`: those that came with the snapshot; `carry`: those of the database
//! before) and expressions that replace columns (`mask`). Invariants: a table that no rule names is emptied, so that what a later
//! migration adds is not leaked; a rule that names what is not there is an error, because a misspelt mask would mask nothing; the chain
//! itself is everybody's and stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};

use crate::columns::{CHAIN_TABLES, INDEX_PROGRESS, MIGRATION_TABLES, TableShape, quote};
use crate::full;

/// Rules, as the file has them. Tables of `public` by their name, others with their schema before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Tables whose rows came with the snapshot and stay.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Tables whose rows are taken over from the database before, those that others point to first.
    #[serde(default)]
    pub carry: Vec<String>,
    /// By `table.column`, an SQL expression over the row that replaces it.
    #[serde(default)]
    pub mask: BTreeMap<String, String>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Masked {
    /// Tables that were emptied.
    pub emptied: usize,
    /// Tables whose rows were taken over, and how many.
    pub carried: BTreeMap<String, u64>,
    /// Columns that were replaced, and in how many rows.
    pub masked: BTreeMap<String, u64>,
}

/// Rules that cannot be followed. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// The operating system refused.
    #[error("cannot read the rules in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not rules.
    #[error("{} is not a rules file: {problem}", path.display())]
    NotRules {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A rule names what is not there.
    #[error("the rules name {name}, which is not {what}: correct its name, or take the rule out")]
    Unknown {
        /// As the rule spells it.
        name: String,
        /// What it should be.
        what: &'static str,
    },
    /// A statement failed.
    #[error("cannot {doing}")]
    Database {
        /// What was to be done.
        doing: String,
        /// Why it was not.
        #[source]
        source: sqlx::Error,
    },
}

impl MaskError {
    fn at(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Database { doing, source }
    }
}

impl Rules {
    /// Reads a rules file.
    ///
    /// # Errors
    /// [`MaskError::File`], [`MaskError::NotRules`].
    pub fn from_file(path: &Path) -> Result<Self, MaskError> {
        let text = std::fs::read_to_string(path).map_err(|source| MaskError::File { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| MaskError::NotRules { path: path.to_owned(), problem: error.message().to_owned() })
    }
}

/// Follows the rules in the database of `conn`, in one transaction; `before` is the database that rows are carried over from. Doing it
/// again gives the same.
///
/// # Errors
/// [`MaskError`]; nothing is changed then.
pub async fn apply(conn: &mut PgConnection, before: Option<&mut PgConnection>, rules: &Rules) -> Result<Masked, MaskError> {
    let mut tx = conn.begin().await.map_err(MaskError::at("begin"))?;
    let tables = full::tables(&mut tx).await.map_err(MaskError::at("list the tables"))?;
    for name in rules.keep.iter().chain(&rules.carry) {
        find(&tables, name)?;
    }
    let private = |table: &&TableShape| !is_chain(table) && !rules.keep.contains(&table.name);
    let empty: Vec<String> = tables.iter().filter(private).map(TableShape::qualified).collect();
    if !empty.is_empty() {
        // Without cascade: a table that is kept and points into one that is emptied is an error, not a loss.
        let sql = format!("truncate {}", empty.join(", "));
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.map_err(MaskError::at("empty the tenants' tables"))?;
    }
    let mut masked = Masked { emptied: empty.len(), ..Masked::default() };
    if let Some(before) = before {
        for name in &rules.carry {
            let rows = carry(&mut tx, before, find(&tables, name)?).await.map_err(MaskError::at(format!("carry {name} over")))?;
            masked.carried.insert(name.clone(), rows);
        }
    }
    for (name, expression) in &rules.mask {
        let (table, column) = column_of(&tables, name)?;
        let sql = format!("update {} set {} = {expression}", table.qualified(), quote(&column));
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await;
        masked.masked.insert(name.clone(), done.map_err(MaskError::at(format!("mask {name}")))?.rows_affected());
    }
    tx.commit().await.map_err(MaskError::at("commit"))?;
    Ok(masked)
}

fn is_chain(table: &TableShape) -> bool {
    let mut all = CHAIN_TABLES.iter().chain([&INDEX_PROGRESS]).chain(&MIGRATION_TABLES);
    table.schema.is_none() && all.any(|known| known.name == table.name)
}

fn find<'a>(tables: &'a [TableShape], name: &str) -> Result<&'a TableShape, MaskError> {
    let unknown = || MaskError::Unknown { name: name.to_owned(), what: "a table of the snapshot" };
    tables.iter().find(|table| table.name == name && !is_chain(table)).ok_or_else(unknown)
}

fn column_of<'a>(tables: &'a [TableShape], name: &str) -> Result<(&'a TableShape, String), MaskError> {
    let unknown = || MaskError::Unknown { name: name.to_owned(), what: "a column of a tenants' table (table.column)" };
    let (table, column) = name.rsplit_once('.').ok_or_else(unknown)?;
    let table = find(tables, table).map_err(|_| unknown())?;
    if table.columns.iter().any(|known| known == column) { Ok((table, column.to_owned())) } else { Err(unknown()) }
}

/// Copies the rows of a table from another database, in the columns that both have. None where it is not there.
async fn carry(to: &mut PgConnection, from: &mut PgConnection, table: &TableShape) -> sqlx::Result<u64> {
    use futures::TryStreamExt;
    let there = full::tables(from).await?;
    let Some(old) = there.iter().find(|old| old.name == table.name) else { return Ok(0) };
    let both: Vec<String> =
        table.columns.iter().filter(|column| old.columns.contains(column)).map(|column| quote(column)).collect();
    let columns = both.join(", ");
    let mut rows = from.copy_out_raw(&format!("copy {} ({columns}) to stdout", table.qualified())).await?;
    let mut target = to.copy_in_raw(&format!("copy {} ({columns}) from stdin", table.qualified())).await?;
    while let Some(row) = rows.try_next().await? {
        target.send(row).await?;
    }
    target.finish().await
}
