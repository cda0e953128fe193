//! Starts PostgreSQL's own client programs (`pg_dump`, `pg_restore`, `psql`) on a database URL.
//!
//! Not a connection: what the programs do and say is their caller's business.
//!
//! Invariant: no password is ever in a command line, where every user of the machine could read it.

use std::path::Path;

use percent_encoding::percent_decode_str;
use tokio::process::Command;
use url::{Url, form_urlencoded};

/// Why a program cannot be pointed at a database URL.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL. The URL itself is left out, since it may hold a password.
    #[error("database url is not valid: write postgres://user:password@host:port/database")]
    Url(#[source] url::ParseError),
    /// A URL of something else.
    #[error("database url has scheme {scheme:?}: expected postgres or postgresql")]
    Scheme {
        /// Its scheme.
        scheme: String,
    },
    /// A password that is not text.
    #[error("password in the database url is not percent-encoded UTF-8")]
    Password(#[source] std::str::Utf8Error),
}

/// `program`, to be run on the database of `database_url`: `--dbname` without the password, which goes by environment.
///
/// The process is killed when it is dropped, and never asks for a password.
///
/// # Errors
/// [`ClientError`] when the URL is not one of a PostgreSQL database.
pub fn command(program: &Path, database_url: &str) -> Result<Command, ClientError> {
    let target = Target::parse(database_url)?;
    let mut command = Command::new(program);
    command.arg(format!("--dbname={}", target.url)).arg("--no-password").kill_on_drop(true);
    if let Some(password) = target.password {
        command.env("PGPASSWORD", password);
    }
    Ok(command)
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    url: String,
    password: Option<String>,
}

impl Target {
    fn parse(database_url: &str) -> Result<Self, ClientError> {
        let mut url = Url::parse(database_url).map_err(ClientError::Url)?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(ClientError::Scheme { scheme: url.scheme().to_owned() });
        }
        let mut password = url.password().map(decode).transpose()?;
        // Fails for URLs without a host only, and those have no password.
        let _ = url.set_password(None);
        let mut query = form_urlencoded::Serializer::new(String::new());
        let mut empty = true;
        for (key, value) in url.query_pairs() {
            if key == "password" {
                password = Some(value.into_owned());
            } else if let Some(key) = libpq_key(&key) {
                query.append_pair(key, &value);
                empty = false;
            }
        }
        // libpq takes a plus sign as itself.
        let query = query.finish().replace('+', "%20");
        url.set_query((!empty).then_some(&query));
        Ok(Self { url: url.into(), password })
    }
}

fn decode(text: &str) -> Result<String, ClientError> {
    Ok(percent_decode_str(text).decode_utf8().map_err(ClientError::Password)?.into_owned())
}

/// libpq refuses parameters that it does not know; sqlx spells some in its own way and has some of its own.
fn libpq_key(key: &str) -> Option<&str> {
    match key {
        "ssl-mode" => Some("sslmode"),
        "ssl-root-cert" | "ssl-ca" => Some("sslrootcert"),
        "ssl-cert" => Some("sslcert"),
        "ssl-key" => Some("sslkey"),
        "statement-cache-capacity" => None,
        key if key.starts_with("options[") => None,
        key => Some(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> (String, Option<String>) {
        let target = Target::parse(url).expect("a database url");
        (target.url, target.password)
    }

    #[test]
    fn the_password_leaves_the_url_in_either_place() {
        let bare = "postgres://me@db.example:5433/chain".to_owned();
        assert_eq!(target("postgres://me:p%40s+s@db.example:5433/chain"), (bare.clone(), Some("p@s+s".into())));
        assert_eq!(target("postgres://me@db.example:5433/chain?password=p%40s"), (bare.clone(), Some("p@s".into())));
        assert_eq!(target(&bare), (bare, None));
    }

    #[test]
    fn a_socket_folder_stays_and_foreign_parameters_go() {
        let (url, password) =
            target("postgres://me@localhost/chain?host=/run/pg&statement-cache-capacity=0&ssl-mode=require&options=-c%20a%3Db");
        assert_eq!(url, "postgres://me@localhost/chain?host=%2Frun%2Fpg&sslmode=require&options=-c%20a%3Db");
        assert_eq!(password, None);
    }

    #[test]
    fn other_schemes_are_refused_without_repeating_the_url() {
        for url in ["mysql://me:secret@db/x", "me:secret/x", "not a url with secret"] {
            let error = Target::parse(url).expect_err("must be refused");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
