//! Exit codes and the one error type that carries them: what happened, why, what to do next.

use serde::Serialize;

/// Exit codes of every command (notes/surfaces E; the README lists them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[repr(u8)]
pub enum Exit {
    /// Failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is no such thing.
    NotFound = 4,
    /// What was checked is not what it should be.
    Diverged = 5,
    /// Refused, so that nothing is overwritten or endangered.
    Refused = 6,
    /// Something else holds it.
    Conflict = 7,
    /// Rights are missing.
    Auth = 8,
    /// A server does not answer; trying again may help.
    Unreachable = 9,
    /// Interrupted; running it again goes on.
    Interrupted = 130,
}

/// A failure with its exit code and the next step for the person at the keyboard.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    source: Option<anyhow::Error>,
}

impl Failure {
    /// A failure without a cause of its own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None }
    }

    /// A failure with a cause.
    pub fn caused(exit: Exit, message: impl Into<String>, source: impl Into<anyhow::Error>) -> Self {
        Self { exit, message: message.into(), hint: None, source: Some(source.into()) }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| &**error as &(dyn std::error::Error + 'static))
    }
}

/// The exit code and hint of an error, whatever layer it comes from.
pub fn classify(error: &anyhow::Error) -> (Exit, Option<String>) {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    if let Some(failure) = failure {
        return (failure.exit, failure.hint.clone());
    }
    let database = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>());
    if let Some(database) = database {
        return of_database(database);
    }
    let http = error.chain().find_map(|cause| cause.downcast_ref::<reqwest::Error>());
    match http {
        Some(broken)
            if broken.is_connect() || broken.is_timeout() || broken.is_request() || broken.is_body() || broken.is_decode() =>
        {
            (Exit::Unreachable, Some("the connection broke; run the same command again".into()))
        }
        _ => (Exit::Failed, None),
    }
}

/// SQLSTATE codes: PostgreSQL documentation, appendix A.
fn of_database(error: &sqlx::Error) -> (Exit, Option<String>) {
    let (exit, hint) = match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) => {
            (Exit::Unreachable, "check that the server runs and that DATABASE_URL names it")
        }
        sqlx::Error::Configuration(_) => (Exit::Usage, "write DATABASE_URL as postgres://user:password@host:port/database"),
        sqlx::Error::Database(refused) => match refused.code().as_deref() {
            Some("28P01" | "28000" | "42501") => (Exit::Auth, "check the role, its password and its rights in DATABASE_URL"),
            Some("3D000") => (Exit::NotFound, "create the database first, or correct its name in DATABASE_URL"),
            Some("53300" | "57P01" | "57P02" | "57P03") => {
                (Exit::Unreachable, "the server is busy, starting or stopping; try again shortly")
            }
            Some("53100") => (Exit::Failed, "the database's disk is full: free some space, then run the same command again"),
            _ => return (Exit::Failed, None),
        },
        _ => return (Exit::Failed, None),
    };
    (exit, Some(hint.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_code_and_hint_under_any_context() {
        let failure = Failure::new(Exit::Refused, "no").hint("do this");
        let error = anyhow::Error::from(failure).context("while trying");
        assert_eq!(classify(&error), (Exit::Refused, Some("do this".into())));
    }

    #[test]
    fn an_address_that_is_none_is_wrong_usage_and_a_dead_server_is_not() {
        let bad = "nonsense".parse::<sqlx::postgres::PgConnectOptions>().unwrap_err();
        assert_eq!(classify(&anyhow::Error::from(bad)).0, Exit::Usage);
        let dead = sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(classify(&anyhow::Error::from(dead).context("cannot connect")).0, Exit::Unreachable);
    }
}
