//! `GET /runs/events`: the log of all runs, or of one, as server-sent events (WHATWG HTML §9.2).
//!
//! Each event's id is the reader's place in the log: with it as `Last-Event-ID` the stream goes on where it was left, and
//! nothing is lost or sent twice. Invariant: what a slow reader has not taken waits in the table, not in our memory, and
//! an idle stream holds no connection to the database.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::{EventCursor, Follower, RunId};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Problem, chain};
use crate::state::ApiState;

/// Readers at once.
const READERS: usize = 200;
/// Silence between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(crate) fn router() -> Router<ApiState> {
    let readers = Arc::new(Semaphore::new(READERS));
    Router::new().route(
        "/runs/events",
        get(move |state: State<ApiState>, query: Query<FollowQuery>, headers: HeaderMap| {
            follow(Arc::clone(&readers), state, query, headers)
        }),
    )
}

#[derive(Deserialize)]
struct FollowQuery {
    run: Option<String>,
}

async fn follow(
    readers: Arc<Semaphore>,
    State(state): State<ApiState>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let full = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_READERS", "too many read events; try again shortly");
    let reader = readers.try_acquire_owned().map_err(full)?;
    let run = match &query.run {
        Some(id) => Some(known(&state, id).await?),
        None => None,
    };
    let from = headers.get("last-event-id").map(place).transpose()?;
    let follower = state.engine.follow(run, from).await?;
    let events = events(follower, reader).take_until(state.stopping.clone().cancelled_owned());
    let unbuffered = [(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))).into_response())
}

async fn known(state: &ApiState, id: &str) -> Result<RunId, Problem> {
    let missing = || Problem::not_found("RUN_NOT_FOUND", format!("there is no run {id}"));
    let run: RunId = id.parse().map_err(|_| missing())?;
    state.engine.run(run).await?.map(|_| run).ok_or_else(missing)
}

fn place(header: &HeaderValue) -> Result<EventCursor, Problem> {
    let bad = || Problem::bad_request("VALIDATION_ERROR", "Last-Event-ID is not an id that this stream gave out");
    header.to_str().map_err(|_| bad())?.parse().map_err(|_| bad())
}

/// Ends when the database fails: the reader comes back with its last id.
fn events(follower: Follower, reader: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    let pages = stream::unfold((follower, reader), |(mut follower, reader)| async move {
        match follower.next(HEARTBEAT).await {
            Ok(page) => Some((page, (follower, reader))),
            Err(error) => {
                tracing::warn!(error = chain(&error), "a stream of events ended early");
                None
            }
        }
    });
    pages.flat_map(|page| {
        stream::iter(page.into_iter().filter_map(|(place, event)| {
            let event = Event::default().id(place.to_string()).json_data(&event).ok()?;
            Some(Ok(event))
        }))
    })
}
