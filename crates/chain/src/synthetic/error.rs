//! What can stop a synthetic chain from being written or loaded.

use std::path::PathBuf;

/// Generating itself never fails; writing and loading do.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// A chain has at least its genesis block.
    #[error("a chain of 0 blocks has nothing to write: ask for at least 1")]
    NoBlocks,
    /// The recording or its expectations could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Loading appends nothing to an existing chain, whose hashes would not link.
    #[error(
        "the database already has {blocks} blocks: load into an empty database, or empty blocks, transactions, events and index_progress first"
    )]
    NotEmpty {
        /// Rows found in `blocks`.
        blocks: i64,
    },
    /// The chain tables are missing, or lack a column that every version of them has.
    #[error("table {table} lacks column {column}: run `snapshots migrate` on this database first")]
    MissingColumn {
        /// The table looked at.
        table: &'static str,
        /// The column it needs.
        column: &'static str,
    },
    /// A column that the generator does not know and that the database does not fill by itself.
    #[error(
        "table {table} has a required column {column} that synthetic chains cannot fill: this version of the schema is not known"
    )]
    UnknownColumn {
        /// The table looked at.
        table: &'static str,
        /// The unknown column.
        column: String,
    },
    /// The database refused a statement.
    #[error("cannot {doing}")]
    Database {
        /// What was being done, as in "cannot load the rows".
        doing: &'static str,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// The generator's thread ended before its work did.
    #[error("the generator stopped before its last block")]
    Generator,
}
