//! Bodies of requests: what is no JSON is 400, JSON that says something else than it should is 422.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::Problem;

/// Longest reason that is kept.
const REASON_CHARS: usize = 500;

/// The body as a JSON object, or `null` where nothing was sent. A list is not taken for an object's fields in their order.
pub(crate) fn value(body: &[u8]) -> Result<Value, Problem> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let value = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request("INVALID_JSON", format!("the body is not JSON: {error}")))?;
    match value {
        Value::Object(_) | Value::Null => Ok(value),
        _ => Err(unfit("the body must be a JSON object")),
    }
}

/// The body as a `T`; an empty one is an empty object.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let value = match value(body)? {
        Value::Null => Value::Object(serde_json::Map::new()),
        value => value,
    };
    serde_json::from_value(value).map_err(|error| unfit(error.to_string()))
}

/// 422.
pub(crate) fn unfit(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
}

/// A reason that people will read in lists, on one line.
pub(crate) fn reason(text: Option<&str>) -> Result<String, Problem> {
    let text = text.map(str::trim).unwrap_or_default();
    let plain = text.chars().all(|c| !c.is_control());
    if text.is_empty() || text.chars().count() > REASON_CHARS || !plain {
        return Err(unfit(format!("give a reason: one line of 1 to {REASON_CHARS} characters")));
    }
    Ok(text.to_owned())
}
