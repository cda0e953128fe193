//! Stands before every route of the API.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::keys::{Holder, holder};
use super::local::stranger;
use super::{Access, Actor, Insider, Scope};
use crate::problem::Problem;
use crate::state::ApiState;

/// Whether reading needs a key where changing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    Keyed,
}

/// Lets reading pass, and anything else only for an operator. A key that is presented must be good even where none is needed.
pub(crate) async fn guard(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    pass(state, Reading::Open, request, next).await
}

/// As [`guard`], and lets read only who has a key: what runs, fails and is paused is not for everybody.
pub(crate) async fn guard_operations(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    pass(state, Reading::Keyed, request, next).await
}

/// Before a node's posts, which carry no key: they are taken from programs of this machine alone.
pub(crate) async fn guard_ingest(request: Request, next: Next) -> Response {
    let Some(why) = stranger(&request) else { return next.run(request).await };
    let detail = format!("a node's posts are taken straight from a program of this machine alone ({why})");
    Problem::new(StatusCode::FORBIDDEN, "AUTHORIZATION_ERROR", detail).into_response()
}

async fn pass(state: ApiState, reading: Reading, mut request: Request, next: Next) -> Response {
    let presented = match bearer(request.headers()) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    // The guard of all routes has looked it up before.
    let known = request.extensions().get::<Holder>().cloned();
    let holder = match presented {
        _ if known.is_some() => known,
        None => None,
        Some(key) => match holder(&state.services.control, &state.services.indexed, &key).await {
            Ok(Some(holder)) => Some(holder),
            Ok(None) => return challenge("this key is unknown or revoked"),
            Err(error) => return Problem::from(error).into_response(),
        },
    };
    let caller = Caller { access: state.access, stranger: stranger(&request), holder: holder.as_ref() };
    if let Err(response) = caller.allowed(reading, request.method()) {
        return *response;
    }
    let insider = Insider(caller.is_insider());
    request.extensions_mut().insert(insider);
    let actor = holder.as_ref().map_or_else(|| "local".to_owned(), |holder| holder.actor.clone());
    request.extensions_mut().insert(Actor(actor));
    if let Some(holder) = holder {
        request.extensions_mut().insert(holder);
    }
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let key = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(|key| key.trim().to_owned());
    key.map(Some)
        .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "AUTHENTICATION_ERROR", "use `Authorization: Bearer sk-sl_…`"))
}

/// Who asks, as far as it is known.
struct Caller<'a> {
    access: Access,
    stranger: Option<&'static str>,
    holder: Option<&'a Holder>,
}

impl Caller<'_> {
    fn is_insider(&self) -> bool {
        self.holder.is_some() || self.access == Access::Loopback && self.stranger.is_none()
    }

    fn allowed(&self, reading: Reading, method: &Method) -> Result<(), Box<Response>> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match self.holder {
            _ if reads && reading == Reading::Open => Ok(()),
            Some(_) if reads => Ok(()),
            Some(holder) if holder.scope >= Scope::Operator => Ok(()),
            Some(holder) => {
                let detail = format!("this key has scope {}; scope operator is needed", holder.scope);
                Err(Box::new(Problem::new(StatusCode::FORBIDDEN, "AUTHORIZATION_ERROR", detail).into_response()))
            }
            None if self.is_insider() => Ok(()),
            None => {
                let why = self.stranger.filter(|_| self.access == Access::Loopback);
                let why =
                    why.map(|why| format!(" since this request did not come straight from a program of this machine ({why})"));
                let detail = format!("a key is needed{}; make one with `snapshots api-key create`", why.unwrap_or_default());
                Err(Box::new(challenge(&detail)))
            }
        }
    }
}

fn challenge(detail: &str) -> Response {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "AUTHENTICATION_ERROR", detail).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(access: Access, reading: Reading, method: Method, scope: Option<Scope>) -> u16 {
        let holder = scope.map(|scope| Holder { actor: "a".into(), scope });
        let caller = Caller { access, stranger: None, holder: holder.as_ref() };
        caller.allowed(reading, &method).map_or_else(|response| response.status().as_u16(), |()| 200)
    }

    #[test]
    fn changing_needs_an_operator_beyond_loopback() {
        for reading in [Reading::Open, Reading::Keyed] {
            let change = |access, method, scope| status(access, reading, method, scope);
            assert_eq!(change(Access::Keys, Method::POST, None), 401);
            assert_eq!(change(Access::Keys, Method::DELETE, Some(Scope::Write)), 403);
            assert_eq!(change(Access::Keys, Method::PATCH, Some(Scope::Operator)), 200);
            assert_eq!(change(Access::Loopback, Method::POST, None), 200);
            assert_eq!(change(Access::Loopback, Method::POST, Some(Scope::Read)), 403, "a key that is shown counts");
        }
    }

    #[test]
    fn reading_what_is_not_public_needs_some_key_beyond_loopback() {
        assert_eq!(status(Access::Keys, Reading::Open, Method::GET, None), 200);
        assert_eq!(status(Access::Keys, Reading::Keyed, Method::GET, None), 401);
        assert_eq!(status(Access::Keys, Reading::Keyed, Method::HEAD, Some(Scope::Read)), 200);
        assert_eq!(status(Access::Loopback, Reading::Keyed, Method::GET, None), 200);
    }
}
