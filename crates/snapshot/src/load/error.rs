//! Why a snapshot is not restored, or not yet.

use serde::Serialize;

use crate::fetch::FetchError;
use crate::schema_object::SchemaObjectError;

/// A reason not to begin. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Refusal {
    /// The server is older than the one the snapshot came from, or than any we know.
    #[error("the server is PostgreSQL {found}; the snapshot needs {needed} or later")]
    OldServer {
        /// Its major version.
        found: u32,
        /// What is needed.
        needed: u32,
    },
    /// The text of the snapshot does not fit.
    #[error("the database has encoding {found} instead of UTF8: create it with encoding 'UTF8' template template0")]
    Encoding {
        /// Its encoding.
        found: String,
    },
    /// Something is there.
    #[error("the database is not empty: schema public has {examples} ({count} in all); restore into an empty database")]
    NotEmpty {
        /// Number of things.
        count: usize,
        /// The first few.
        examples: String,
    },
    /// Schemas of the snapshot are there.
    #[error("the database has the schemas {schemas} already, which the snapshot brings: restore into an empty database")]
    SchemasThere {
        /// Their names.
        schemas: String,
    },
    /// Another restore is under way or done there.
    #[error("the database holds snapshot {held} ({state}), not {wanted}: use an empty database, or `snapshots update`")]
    OtherRestore {
        /// What it holds.
        held: String,
        /// Whether it is complete.
        state: String,
        /// What was asked for.
        wanted: String,
    },
    /// The role may not do what is needed.
    #[error("the role {role} lacks the right to {right}: {grant}")]
    Rights {
        /// The role.
        role: String,
        /// What it cannot do.
        right: String,
        /// The statement that helps.
        grant: String,
    },
    /// The server cannot make an extension that the snapshot's schema needs.
    #[error("the schema needs extension {extension}, which this server {why}: {help}")]
    Extension {
        /// Its name.
        extension: String,
        /// What stands against it.
        why: String,
        /// What helps.
        help: String,
    },
    /// It would not fit.
    #[error(
        "too little disk: {free} bytes are free and about {needed} are needed (database {database}, WAL {wal}, sorting {sort})"
    )]
    Disk {
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
        /// Of these for tables and indexes.
        database: u64,
        /// For WAL.
        wal: u64,
        /// For sorting.
        sort: u64,
    },
}

fn listed(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A restore or update that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Reasons not to begin.
    #[error("refused before the first row: {}", listed(.0))]
    Refused(Vec<Refusal>),
    /// The selection makes no sense for this snapshot.
    #[error("{0}")]
    Selection(String),
    /// Somebody else works on the same database.
    #[error("another restore or update works on this database: wait for its end, or end it")]
    Busy,
    /// A published object cannot be had.
    #[error("cannot get an object of the snapshot")]
    Fetch(#[from] FetchError),
    /// The schema object is damaged, or no table of contents.
    #[error(transparent)]
    Schema(#[from] SchemaObjectError),
    /// A chunk does not hold what the manifest says.
    #[error("chunk {chunk} is not what the manifest says: {found}")]
    Chunk {
        /// Its file name.
        chunk: String,
        /// What is wrong.
        found: String,
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
    /// The final checks could not be made.
    #[error("cannot read the restored database to check it")]
    Verify(#[source] sqlx::Error),
    /// An update that cannot be made.
    #[error("cannot update this database: {0}")]
    NotUpdatable(String),
    /// A working thread panicked.
    #[error("a working thread panicked")]
    Panicked,
}

impl LoadError {
    /// Names what was being done when the database failed.
    pub(super) fn at(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Database { doing, source }
    }
}
