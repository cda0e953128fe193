//! The one shape of every error answer: RFC 9457 `application/problem+json`, with the original's `error` and `code` beside it.
//!
//! Server errors show what failed in general terms and log the cause with its whole chain, once, here.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use snapshot::store::StoreError;

/// Longest text of an extractor that is repeated.
const SAID_BYTES: usize = 4 << 10;

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    run: Option<String>,
}

impl Problem {
    /// An answer with a status, a code from the documented list, and words for a person.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), run: None }
    }

    /// 404.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 400.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Names the run that stands in the way.
    #[must_use]
    pub fn with_run(mut self, run: impl ToString) -> Self {
        self.run = Some(run.to_string());
        self
    }

    /// 422 for what no database can hold, else [`Problem::unavailable`].
    pub(crate) fn of_database(what: &str, error: &sqlx::Error) -> Self {
        match error.as_database_error().filter(|refused| is_of_data(refused.code().as_deref())) {
            Some(refused) => {
                let detail = format!("the database cannot hold this value: {}", refused.message());
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
            }
            None => Self::unavailable(what, error),
        }
    }

    /// 503 for what may work later.
    pub fn unavailable(what: &str, error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %chain(error), "{what}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", format!("{what}; try again shortly"))
    }
}

/// An error with its causes, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let mut body = json!({
            "type": format!("urn:secondlayer:problem:{}", self.code.to_lowercase().replace('_', "-")),
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "error": self.detail,
            "code": self.code,
        });
        if let Some(run) = self.run {
            body["runId"] = json!(run);
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::of_database("the control database does not answer", &error)
    }
}

/// SQLSTATE class 22 (PostgreSQL documentation, appendix A): what was sent is wrong, for example text with a NUL, and will be again.
fn is_of_data(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("22"))
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing { .. } => Self::not_found("NOT_FOUND", "there is no such object"),
            error => Self::unavailable("the bucket does not answer", &error),
        }
    }
}

/// Gives the refusals that axum and its extractors answer in plain text (a bad query, a body too long) the one shape; their
/// other headers stay.
pub(crate) async fn shape(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let shaped = kind.is_some_and(|kind| !kind.starts_with("text/plain"));
    if shaped || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, SAID_BYTES).await.unwrap_or_default();
    let detail = String::from_utf8_lossy(&said).trim().to_owned();
    let title = status.canonical_reason().unwrap_or("error").to_lowercase();
    let mut response = Problem::new(status, code_of(status), if detail.is_empty() { title } else { detail }).into_response();
    for (name, value) in &parts.headers {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "BODY_TOO_LARGE",
        StatusCode::RANGE_NOT_SATISFIABLE => "RANGE_NOT_SATISFIABLE",
        status if status.is_server_error() => "INTERNAL_ERROR",
        _ => "VALIDATION_ERROR",
    }
}

pub(crate) async fn no_such_route(uri: axum::http::Uri) -> Problem {
    Problem::not_found("NOT_FOUND", format!("there is nothing at {}", uri.path()))
}

pub(crate) async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", format!("{} does not take {method}", uri.path()))
}

pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "this is a fault of the service; it has been logged")
        .into_response()
}
