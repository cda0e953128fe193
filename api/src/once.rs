//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent again starts nothing again.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{Idempotency, Started};
use serde_json::{Value, json};

use crate::auth::Actor;
use crate::problem::Problem;

/// Who asks, and under which key.
pub(crate) struct Asked {
    pub(crate) actor: String,
    request: String,
    key: Option<String>,
}

impl Asked {
    /// The key for a request with this body; none was sent: none.
    pub(crate) fn key<'a>(&'a self, body: &'a [u8]) -> Option<Idempotency<'a>> {
        let key = self.key.as_deref()?;
        Some(Idempotency { principal: &self.actor, request: &self.request, key, body })
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unreadable = |_| Problem::bad_request("VALIDATION_ERROR", "Idempotency-Key must be printable ASCII");
        let key = parts.headers.get("idempotency-key").map(HeaderValue::to_str).transpose().map_err(unreadable)?;
        let actor = parts.extensions.get::<Actor>().map_or_else(|| "local".to_owned(), |actor| actor.0.clone());
        // Under `/api` the router has taken that off: both are the same request.
        let asked = parts.uri.path_and_query().map_or("/", |asked| asked.as_str());
        let request = format!("{} {asked}", parts.method);
        Ok(Self { actor, request, key: key.map(str::to_owned) })
    }
}

/// 202 with the run's address; `more` is shown beside its id.
pub(crate) fn accepted(started: Started, more: Value) -> Response {
    let mut body = json!({ "runId": started.run, "replayed": started.replayed });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let location = format!("/runs/{}", started.run);
    let mut response = (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response();
    if started.replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}
