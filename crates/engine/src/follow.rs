//! The log of all runs as a stream that can be left and taken up again, for any number of readers.
//!
//! Ids are drawn before their transactions commit, so an event may appear below one that was read already. A reader
//! therefore remembers the ids it has jumped over until no transaction of that time is left that could still bring them.
//! Invariant: every event is given out once, however slow the reader and however often it comes back, and no connection
//! is held between two looks.
use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use sqlx::{PgPool, Row};
use tokio::time::Instant;

use crate::{
    client::Client,
    model::{Event, RunId},
    moves::Waiter,
};

/// Events read at once.
const PAGE: i64 = 500;
/// Ids below an event that may still be on their way.
const WINDOW: i64 = 1000;
/// Transactions of the engine are shorter than this by far.
const ON_THE_WAY: chrono::Duration = chrono::Duration::minutes(10);
/// Time between two looks without being told.
const LOOK: Duration = Duration::from_secs(2);
/// Time between two looks however often told.
const REST: Duration = Duration::from_millis(200);

/// A reader's place: events up to one id, but for some. Its text is `1042` or, with ids left out, `1042.1037.1039`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventCursor {
    last: i64,
    missing: Vec<i64>,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.last)?;
        self.missing.iter().try_for_each(|id| write!(f, ".{id}"))
    }
}

/// A text that is no [`EventCursor`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id looks like 1042 or 1042.1037, as this stream gave them out")]
pub struct BadCursor;

impl FromStr for EventCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut ids = text.split('.').map(|id| id.parse::<i64>().ok().filter(|id| *id >= 0).ok_or(BadCursor));
        let last = ids.next().ok_or(BadCursor)??;
        let missing = ids.take(usize::try_from(WINDOW).unwrap_or(0)).collect::<Result<Vec<_>, _>>()?;
        if missing.iter().any(|id| *id >= last) { Err(BadCursor) } else { Ok(Self { last, missing }) }
    }
}

/// Follows the log; made by [`Client::follow`].
pub struct Follower {
    pool: PgPool,
    run: Option<RunId>,
    waiter: Waiter,
    last: i64,
    /// Ids jumped over, each with the first transaction id that was not given out when that was noticed.
    missing: BTreeMap<i64, Option<i64>>,
    looked: Option<Instant>,
}

impl Client {
    /// Follows the log of one run, or of all. From `from` on; without it, of one run from its beginning, else from now.
    ///
    /// # Errors
    /// The database's.
    pub async fn follow(&self, run: Option<RunId>, from: Option<EventCursor>) -> sqlx::Result<Follower> {
        let waiter = self.moves.subscribe();
        let from = match from {
            Some(from) => from,
            None => EventCursor { last: beginning(&self.pool, run).await?, missing: Vec::new() },
        };
        let missing = from.missing.into_iter().map(|id| (id, None)).collect();
        Ok(Follower { pool: self.pool.clone(), run, waiter, last: from.last, missing, looked: None })
    }
}

async fn beginning(pool: &PgPool, run: Option<RunId>) -> sqlx::Result<i64> {
    let sql = match run {
        Some(_) => "select coalesce(min(id), 1) - 1 from snapshots.event where run_id = $1",
        None => "select coalesce(max(id), 0) from snapshots.event where $1::uuid is null",
    };
    sqlx::query_scalar(sql).bind(run).fetch_one(pool).await
}

impl Follower {
    /// The next events, oldest first, each with the reader's place after it; none if nothing comes for as long as
    /// `patience`. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The database's; the next call goes on where this one was.
    pub async fn next(&mut self, patience: Duration) -> sqlx::Result<Vec<(EventCursor, Event)>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(looked) = self.looked {
                tokio::time::sleep_until(looked + REST).await;
            }
            let (read, events) = self.look().await?;
            self.looked = Some(Instant::now());
            if !events.is_empty() || Instant::now() >= end {
                return Ok(events);
            }
            if read < PAGE.unsigned_abs() {
                let until = end.min(Instant::now() + LOOK);
                let _ = tokio::time::timeout_at(until, self.waiter.told(self.run)).await;
            }
        }
    }

    async fn look(&mut self) -> sqlx::Result<(u64, Vec<(EventCursor, Event)>)> {
        let over = self.transactions_over().await?;
        let sql = "with page as ( \
                 (select * from snapshots.event where id > $1 order by id limit $3) union all \
                 (select * from snapshots.event where id = any($2))) \
             select id, run_id, step_id, at, level, kind, at > now() - $5 as recent, $4::uuid is null or run_id = $4 as wanted, \
                 case when $4::uuid is null or run_id = $4 then data else 'null' end as data \
             from page order by id";
        let missing: Vec<i64> = self.missing.keys().copied().collect();
        let interval = sqlx::postgres::types::PgInterval::try_from(ON_THE_WAY).map_err(sqlx::Error::Encode)?;
        let rows =
            sqlx::query(sql).bind(self.last).bind(missing).bind(PAGE).bind(self.run).bind(interval).fetch_all(&self.pool).await?;
        let mut events = Vec::new();
        for row in &rows {
            self.pass(row.try_get("id")?, row.try_get("recent")?);
            if row.try_get("wanted")? {
                events.push((self.cursor(), sqlx::FromRow::from_row(row)?));
            }
        }
        self.missing.retain(|_, until| until.is_none_or(|until| until > over));
        Ok((rows.len() as u64, events))
    }

    /// Every transaction below this id is over; those that the missing ids wait for are noted.
    async fn transactions_over(&mut self) -> sqlx::Result<i64> {
        if self.missing.is_empty() {
            return Ok(0);
        }
        let sql = "select pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint from pg_current_snapshot() s";
        let (over, given_out): (i64, i64) = sqlx::query_as(sql).fetch_one(&self.pool).await?;
        self.missing.values_mut().for_each(|until| *until = until.or(Some(given_out)));
        Ok(over)
    }

    /// Notes that an event was read. What old events jump over was deleted, or never came.
    fn pass(&mut self, id: i64, recent: bool) {
        if self.missing.remove(&id).is_some() || id <= self.last {
            return;
        }
        if recent {
            let from = (self.last + 1).max(id - WINDOW);
            self.missing.extend((from..id).map(|id| (id, None)));
        }
        self.last = id;
    }

    fn cursor(&self) -> EventCursor {
        let newest = self.missing.keys().rev().take(100).copied();
        let mut missing: Vec<i64> = newest.collect();
        missing.reverse();
        EventCursor { last: self.last, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for text in ["0", "1042", "1042.1037.1039"] {
            assert_eq!(text.parse::<EventCursor>().unwrap().to_string(), text);
        }
        for bad in ["", "x", "-1", "5.", "5.6", "5.5", "5,4", "99999999999999999999"] {
            assert_eq!(bad.parse::<EventCursor>(), Err(BadCursor), "{bad}");
        }
    }
}
