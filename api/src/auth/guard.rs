//! Stands before every route of the API.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::keys::{Holder, holder};
use super::{Access, Actor, Scope};
use crate::problem::Problem;
use crate::state::ApiState;

/// Lets reading pass, and anything else only for an operator. A key that is presented must be good even where none is needed.
pub(crate) async fn guard(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let presented = match bearer(request.headers()) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let holder = match presented {
        None => None,
        Some(key) => match holder(&state.services.control, &state.services.indexed, &key).await {
            Ok(Some(holder)) => Some(holder),
            Ok(None) => return challenge("this key is unknown or revoked"),
            Err(error) => return Problem::from(error).into_response(),
        },
    };
    if let Err(response) = allowed(state.access, request.method(), holder.as_ref()) {
        return *response;
    }
    let actor = holder.map_or_else(|| "local".to_owned(), |holder| holder.actor);
    request.extensions_mut().insert(Actor(actor));
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let key = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(|key| key.trim().to_owned());
    key.map(Some)
        .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "AUTHENTICATION_ERROR", "use `Authorization: Bearer sk-sl_…`"))
}

fn allowed(access: Access, method: &Method, holder: Option<&Holder>) -> Result<(), Box<Response>> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match holder {
        _ if reads => Ok(()),
        Some(holder) if holder.scope >= Scope::Operator => Ok(()),
        Some(holder) => {
            let detail = format!("this key has scope {}; scope operator is needed", holder.scope);
            Err(Box::new(Problem::new(StatusCode::FORBIDDEN, "AUTHORIZATION_ERROR", detail).into_response()))
        }
        None if access == Access::Loopback => Ok(()),
        None => Err(Box::new(challenge("a key is needed; make one with `snapshots api-key create`"))),
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

    fn status(access: Access, method: Method, scope: Option<Scope>) -> u16 {
        let holder = scope.map(|scope| Holder { actor: "a".into(), scope });
        allowed(access, &method, holder.as_ref()).map_or_else(|response| response.status().as_u16(), |()| 200)
    }

    #[test]
    fn nothing_is_changed_without_the_scope_for_it() {
        for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            assert_eq!(status(Access::Keys, method.clone(), None), 401);
            assert_eq!(status(Access::Keys, method.clone(), Some(Scope::Write)), 403);
            assert_eq!(status(Access::Loopback, method.clone(), Some(Scope::Read)), 403);
            assert_eq!(status(Access::Keys, method.clone(), Some(Scope::Operator)), 200);
            assert_eq!(status(Access::Keys, method.clone(), Some(Scope::Admin)), 200);
            assert_eq!(status(Access::Loopback, method, None), 200);
        }
    }

    #[test]
    fn everybody_may_read() {
        assert_eq!(status(Access::Keys, Method::GET, None), 200);
    }
}
