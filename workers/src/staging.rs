//! Which staging database is refreshed, and by which rules, from the environment alone.

use std::path::Path;

use snapshot::masking::Rules;
use workflows::services::Staging;

use crate::exit::{Exit, Failure};

/// Without a rules file nothing of a tenant is in staging.
pub(crate) fn from_vars(var: &impl Fn(&str) -> Option<String>) -> Result<Option<Staging>, Failure> {
    let Some(url) = var("SNAPSHOTS_STAGING_URL") else { return Ok(None) };
    let bad = || {
        let failure = Failure::new(Exit::Usage, "SNAPSHOTS_STAGING_URL is not the URL of a database");
        failure.hint("write postgres://user:password@host:port/staging")
    };
    let url = url::Url::parse(&url).map_err(|_| bad())?;
    if !["postgres", "postgresql"].contains(&url.scheme()) || url.path().len() < 2 {
        return Err(bad());
    }
    let rules = match var("SNAPSHOTS_STAGING_RULES_FILE") {
        None => Rules::default(),
        Some(file) => Rules::from_file(Path::new(&file)).map_err(|error| {
            let failure = Failure::caused(Exit::Usage, "SNAPSHOTS_STAGING_RULES_FILE cannot be used", error);
            failure.hint("docs/operations/staging-refresh.md shows one")
        })?,
    };
    Ok(Some(Staging { url, rules }))
}
