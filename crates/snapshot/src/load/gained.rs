//! What a schema gained between two snapshots.
//!
//! The database keeps the schema object it was made from, so this is known long after that snapshot is gone.

use bytes::Bytes;

use super::definitions::{kind_and_name, schema_object};
use super::ledger::Held;
use super::{Job, LoadError, ledger};
use crate::fetch::FetchError;
use crate::toc::TocEntry;

/// The schema that a database is brought to.
pub(super) struct Gained {
    pub(super) object: Bytes,
    /// Definitions that the database lacks, in the order in which they are made.
    pub(super) entries: Vec<TocEntry>,
}

impl Gained {
    /// Refuses whatever else differs: how to bring a database from the one to the other is said by neither.
    pub(super) async fn since(job: &Job<'_>, held: &Held) -> Result<Self, LoadError> {
        let new = &job.opened.manifest;
        let object = schema_object(job.source, new).await?;
        let wanted = new.schema.definitions(&object)?;
        let there = there(job, held).await?;
        let defined_otherwise = |entry: &&TocEntry| {
            let same = wanted.iter().find(|other| identity(other) == identity(entry));
            same.is_none_or(|other| other.definition != entry.definition)
        };
        if let Some(entry) = there.iter().find(defined_otherwise) {
            let why = format!("its {} is not that of {}; {ANEW}", kind_and_name(entry), new.path());
            return Err(LoadError::NotUpdatable(why));
        }
        let lacking = |entry: &TocEntry| !there.iter().any(|old| identity(old) == identity(entry));
        Ok(Self { object, entries: wanted.into_iter().filter(lacking).collect() })
    }

    /// Makes them. Their numbers are of another table of contents than those that the ledger lists, so they stand there without.
    pub(super) async fn make(&self, job: &Job<'_>) -> Result<(), LoadError> {
        let mut conn = job.pool.acquire().await.map_err(LoadError::at("connect"))?;
        for entry in &self.entries {
            let sql = entry.definition.as_deref().unwrap_or_default();
            let name = kind_and_name(entry);
            ledger::once(&mut conn, &format!("gained {name}"), sql).await.map_err(LoadError::at(format!("create {name}")))?;
        }
        Ok(())
    }
}

const ANEW: &str = "restore it into an empty database";

async fn there(job: &Job<'_>, held: &Held) -> Result<Vec<TocEntry>, LoadError> {
    if let Some(object) = ledger::schema(job.pool).await.map_err(LoadError::at("read what the database was made from"))? {
        return Ok(held.manifest.schema.definitions(&object)?);
    }
    match schema_object(job.source, &held.manifest).await {
        Err(LoadError::Fetch(FetchError::Missing { .. })) => {
            let path = held.manifest.path();
            Err(LoadError::NotUpdatable(format!("the schema of {path} is not published any more; {ANEW}")))
        }
        object => Ok(held.manifest.schema.definitions(&object?)?),
    }
}

fn identity(entry: &TocEntry) -> (Option<&str>, Option<&str>, Option<&str>) {
    (entry.desc.as_deref(), entry.namespace.as_deref(), entry.tag.as_deref())
}
