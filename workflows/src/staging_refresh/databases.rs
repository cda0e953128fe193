//! The databases of a staging server, and which of them a refresh may touch.
//!
//! `<staging>` is the one that people use; `<staging>_next_<run>` is being made, `<staging>_old_<time>` was switched away. Each carries a
//! comment that says which run made it: a database without one is never renamed or dropped, whatever its name.

use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use engine::StepError;
use snapshot::columns::quote;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::sessions;
use crate::services::Services;
use crate::step_error::classify;

/// Names are cut off by the server at 63 bytes.
const LONGEST: usize = 40;
/// How a comment of ours begins.
const MARK: &str = "made by a snapshots staging refresh, run ";
/// `20261123T035900123`, so that two switches within a second do not meet.
const TIME: &str = "%Y%m%dT%H%M%S%3f";

/// The staging server, reached through its maintenance database.
pub(super) struct Staging {
    url: url::Url,
    /// The database that people use.
    pub(super) name: String,
    admin: PgConnection,
}

fn refused(why: String) -> StepError {
    StepError::fail(std::io::Error::other(why))
}

impl Staging {
    /// Connects, and refuses a staging database that is the indexed or the control database, or could become it.
    pub(super) async fn open(services: &Services) -> Result<Self, StepError> {
        let gone = || refused("no staging database is configured any more: set SNAPSHOTS_STAGING_URL".into());
        let url = services.staging.as_ref().map(|staging| staging.url.clone()).ok_or_else(gone)?;
        let name = database_of(&url).ok_or_else(|| {
            refused(format!("SNAPSHOTS_STAGING_URL names no database, or one with a name longer than {LONGEST}"))
        })?;
        let admin = PgConnection::connect_with(&options(&at(&url, "postgres"))?).await.map_err(classify)?;
        let mut staging = Self { url, name, admin };
        let server = identity(&mut staging.admin).await.map_err(classify)?;
        for (pool, what) in [(&services.indexed, "indexed"), (&services.control, "control")] {
            let (their_server, database) = of(pool).await.map_err(classify)?;
            let touched = database == staging.name || staging.is_next(&database) || staging.old_since(&database).is_some();
            if their_server == server && touched {
                return Err(refused(format!(
                    "SNAPSHOTS_STAGING_URL names {}, which is, or could be taken for, the {what} database {database}: give staging a name of its own",
                    staging.name
                )));
            }
        }
        Ok(staging)
    }

    /// The database that a run makes.
    pub(super) fn next(&self, run: Uuid) -> String {
        let id = run.simple().to_string();
        // The last digits of a UUID v7 are those that chance chose.
        format!("{}_next_{}", self.name, &id[id.len() - 12..])
    }

    fn is_next(&self, database: &str) -> bool {
        let id = database.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix("_next_"));
        id.is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    fn old(&self, at: DateTime<Utc>) -> String {
        format!("{}_old_{}", self.name, at.format(TIME))
    }

    /// When a database was switched away.
    fn old_since(&self, database: &str) -> Option<DateTime<Utc>> {
        let time = database.strip_prefix(self.name.as_str())?.strip_prefix("_old_")?;
        NaiveDateTime::parse_from_str(time, TIME).ok().map(|time| time.and_utc())
    }

    /// Connection URL of one of these databases. Holds a password: never log it.
    pub(super) fn url_of(&self, database: &str) -> String {
        at(&self.url, database).into()
    }

    /// A connection to one of these databases.
    pub(super) async fn connect(&self, database: &str) -> Result<PgConnection, StepError> {
        PgConnection::connect_with(&options(&at(&self.url, database))?).await.map_err(classify)
    }

    /// Whether people have a staging database, and the run that made it. One that no refresh made is refused.
    pub(super) async fn current(&mut self) -> Result<Option<Uuid>, StepError> {
        let comment = "select pg_catalog.shobj_description(oid, 'pg_database') from pg_catalog.pg_database where datname = $1";
        let found: Option<Option<String>> =
            sqlx::query_scalar(comment).bind(&self.name).fetch_optional(&mut self.admin).await.map_err(classify)?;
        let Some(comment) = found else { return Ok(None) };
        let run = comment.as_deref().and_then(|text| text.strip_prefix(MARK)?.split(' ').next()?.parse().ok());
        run.map(Some).ok_or_else(|| {
            refused(format!(
                "database {} was not made by a staging refresh, so it is not touched: rename or drop it, or choose another name",
                self.name
            ))
        })
    }

    /// Drops what was switched away before `since` and what other runs left unfinished. Returns their names.
    pub(super) async fn clean(&mut self, since: DateTime<Utc>, run: Uuid) -> Result<Vec<String>, StepError> {
        let mine = self.next(run);
        let sql = "select datname::text from pg_catalog.pg_database
                   where starts_with(datname::text, $1) and starts_with(pg_catalog.shobj_description(oid, 'pg_database'), $2) order by 1";
        let names = sqlx::query_scalar(sql).bind(format!("{}_", self.name)).bind(MARK);
        let names: Vec<String> = names.fetch_all(&mut self.admin).await.map_err(classify)?;
        let left = |name: &String| *name != mine && self.is_next(name);
        let overdue = |name: &String| self.old_since(name).is_some_and(|switched| switched <= since);
        let gone: Vec<String> = names.into_iter().filter(|name| left(name) || overdue(name)).collect();
        for name in &gone {
            // Without force, which gives up at the first session that this role may not end, be it an autovacuum.
            let names = std::slice::from_ref(name);
            sessions::end(&mut self.admin, names).await.map_err(classify)?;
            let sql = format!("drop database if exists {}", quote(name));
            match sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut self.admin).await {
                Err(error) if is_in_use(&error) => {
                    self.nobody_stays(names).await?;
                    return Err(StepError::retry(error));
                }
                other => other.map_err(classify)?,
            };
        }
        Ok(gone)
    }

    /// Makes the run's database unless it is there, and marks it as ours.
    pub(super) async fn make(&mut self, run: Uuid) -> Result<String, StepError> {
        let database = self.next(run);
        let sql = "select exists (select from pg_catalog.pg_database where datname = $1)";
        let there: bool = sqlx::query_scalar(sql).bind(&database).fetch_one(&mut self.admin).await.map_err(classify)?;
        if !there {
            self.execute(&format!("create database {} encoding 'UTF8' template template0", quote(&database))).await?;
        }
        self.execute(&format!("comment on database {} is '{MARK}{run}'", quote(&database))).await?;
        Ok(database)
    }

    /// One transaction: the run's database is marked and takes the name, the one before steps aside. Others who are connected are
    /// disconnected, where this role may; one who comes back in between is the reason for another try.
    pub(super) async fn switch(&mut self, run: Uuid, snapshot: &str) -> Result<Option<String>, StepError> {
        let next = self.next(run);
        let old = self.current().await?.map(|_| self.old(Utc::now()));
        let mark = format!("{MARK}{run} of {snapshot}").replace('\'', "''");
        let names = [self.name.clone(), next.clone()];
        for _ in 0..TRIES {
            sessions::end(&mut self.admin, &names).await.map_err(classify)?;
            match self.rename(&next, old.as_deref(), &mark).await {
                Ok(()) => return Ok(old),
                Err(error) if is_in_use(&error) => self.nobody_stays(&names).await?,
                Err(error) => return Err(classify(error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(StepError::retry(std::io::Error::other(format!(
            "somebody connects to {} again and again: end that program, then retry the run",
            self.name
        ))))
    }

    /// Refuses, for now, where somebody is connected whom this role may not disconnect.
    async fn nobody_stays(&mut self, databases: &[String]) -> Result<(), StepError> {
        let staying = sessions::staying(&mut self.admin, databases).await.map_err(classify)?;
        staying.map_or(Ok(()), |staying| Err(StepError::retry(std::io::Error::other(staying))))
    }

    async fn rename(&mut self, next: &str, old: Option<&str>, mark: &str) -> sqlx::Result<()> {
        let (name, next) = (quote(&self.name), quote(next));
        let mut tx = self.admin.begin().await?;
        if let Some(old) = old {
            let sql = format!("alter database {name} rename to {}", quote(old));
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await?;
        }
        let sql = format!("comment on database {next} is '{mark}'; alter database {next} rename to {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn execute(&mut self, sql: &str) -> Result<(), StepError> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.admin).await.map(|_| ()).map_err(classify)
    }
}

/// How often a switch is tried before it is left to the next attempt.
const TRIES: u32 = 50;
/// What a program needs to notice that it was disconnected, and less than one needs to come back often.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// 55006: somebody is connected to the database.
fn is_in_use(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55006")
}

fn database_of(url: &url::Url) -> Option<String> {
    let name = percent_encoding::percent_decode_str(url.path().trim_start_matches('/')).decode_utf8().ok()?.into_owned();
    (!name.is_empty() && name.len() <= LONGEST).then_some(name)
}

fn at(url: &url::Url, database: &str) -> url::Url {
    let mut url = url.clone();
    url.set_path(&format!("/{}", percent_encoding::utf8_percent_encode(database, percent_encoding::NON_ALPHANUMERIC)));
    url
}

fn options(url: &url::Url) -> Result<PgConnectOptions, StepError> {
    PgConnectOptions::from_str(url.as_str()).map(|options| options.application_name("snapshots staging")).map_err(classify)
}

/// What tells one server from another: a number that initdb drew, which replicas share.
async fn identity(conn: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select system_identifier from pg_catalog.pg_control_system()").fetch_one(conn).await
}

async fn of(pool: &PgPool) -> sqlx::Result<(i64, String)> {
    let mut conn = pool.acquire().await?;
    let database = sqlx::query_scalar("select pg_catalog.current_database()::text").fetch_one(&mut *conn).await?;
    Ok((identity(&mut conn).await?, database))
}
