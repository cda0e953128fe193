//! Keys: made once, shown once, kept as a digest.
//!
//! Format `sk-sl_` + 32 hex digits, as the original's; the original's own keys (`public.api_keys`) are read and let read.

use chrono::{DateTime, Utc};
use rand::Rng;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::Scope;

/// Characters of a key that lists show.
const PREFIX: usize = 14;

/// A key without its secret.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub name: String,
    /// Its first characters.
    pub prefix: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A key just made: the only moment its secret is known.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewKey {
    /// Its id.
    pub id: Uuid,
    /// The secret.
    pub key: String,
    /// Its first characters.
    pub prefix: String,
}

/// A key that cannot be managed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such key.
    #[error("there is no key {id} that could be revoked")]
    Unknown {
        /// What was asked for.
        id: Uuid,
    },
    /// The database's.
    #[error("cannot reach the keys")]
    Database(#[from] sqlx::Error),
}

/// Makes a key.
///
/// # Errors
/// The database's.
pub async fn create(db: impl PgExecutor<'_>, name: &str, scopes: &[Scope]) -> Result<NewKey, KeyError> {
    let mut secret = [0_u8; 16];
    rand::rng().fill_bytes(&mut secret);
    let key = format!("sk-sl_{}", hex::encode(secret));
    let new = NewKey { id: Uuid::new_v4(), prefix: key.chars().take(PREFIX).collect(), key };
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    sqlx::query("insert into snapshots.api_key (id, name, prefix, hash, scopes) values ($1, $2, $3, $4, $5)")
        .bind(new.id)
        .bind(name)
        .bind(&new.prefix)
        .bind(digest(&new.key))
        .bind(scopes)
        .execute(db)
        .await?;
    Ok(new)
}

/// All keys, newest first.
///
/// # Errors
/// The database's.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<ApiKey>, KeyError> {
    let sql =
        "select id, name, prefix, scopes, created_at, last_used_at, revoked_at from snapshots.api_key order by created_at desc";
    Ok(sqlx::query_as(sql).fetch_all(db).await?)
}

/// Ends a key at once; it stays listed.
///
/// # Errors
/// [`KeyError::Unknown`] when there is none, or it is revoked already.
pub async fn revoke(db: impl PgExecutor<'_>, id: Uuid) -> Result<(), KeyError> {
    let done = sqlx::query("update snapshots.api_key set revoked_at = now() where id = $1 and revoked_at is null")
        .bind(id)
        .execute(db)
        .await?;
    if done.rows_affected() == 0 { Err(KeyError::Unknown { id }) } else { Ok(()) }
}

/// What a presented key is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// For the audit log: name and recognisable start of the key.
    pub(super) actor: String,
    /// The highest scope.
    pub(super) scope: Scope,
}

/// Finds who holds a key: one of ours, or one of the original's, which may read.
pub(super) async fn holder(control: &PgPool, indexed: &PgPool, key: &str) -> sqlx::Result<Option<Holder>> {
    let hash = digest(key);
    let ours: Option<(String, String, Vec<String>)> = sqlx::query_as(
        "update snapshots.api_key set last_used_at = date_trunc('minute', now())
         where hash = $1 and revoked_at is null returning name, prefix, scopes",
    )
    .bind(&hash)
    .fetch_optional(control)
    .await?;
    if let Some((name, prefix, scopes)) = ours {
        let scope = scopes.iter().filter_map(|scope| scope.parse().ok()).max().unwrap_or(Scope::Read);
        return Ok(Some(Holder { actor: format!("{name} ({prefix}…)"), scope }));
    }
    let prefix = of_the_original(indexed, &hash).await?;
    Ok(prefix.map(|prefix| Holder { actor: format!("{prefix}…"), scope: Scope::Read }))
}

async fn of_the_original(indexed: &PgPool, hash: &str) -> sqlx::Result<Option<String>> {
    let there: bool = sqlx::query_scalar("select to_regclass('public.api_keys') is not null").fetch_one(indexed).await?;
    if !there {
        return Ok(None);
    }
    sqlx::query_scalar("select key_prefix from public.api_keys where key_hash = $1 and status = 'active' and revoked_at is null")
        .bind(hash)
        .fetch_optional(indexed)
        .await
}

fn digest(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_originals() {
        let made_for_tests = "sk-sl_0123456789abcdef0123456789abcdef";
        assert_eq!(digest(made_for_tests), "8cedb35637ec12d82e249ab6d5b0a73020260dd86caaa24b7665df9eaf8bf44c");
    }
}
