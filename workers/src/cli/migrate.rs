//! `snapshots migrate`: our tables in real databases.

use anyhow::Context;
use serde_json::json;

use crate::config::Servers;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::service::connect;

pub(crate) async fn run(output: Output) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let Some(url) = servers.database_url else {
        let failure = Failure::new(Exit::Usage, "DATABASE_URL is not set");
        return Err(failure.hint("an embedded database is migrated by `snapshots serve` itself").into());
    };
    let control_url = servers.control_database_url.unwrap_or_else(|| url.clone());
    let indexed = connect(&url).await.context("cannot connect to the indexed database (DATABASE_URL)")?;
    let control = engine::control_pool(&control_url, 4).await.context("cannot connect to the control database")?;
    chain::migrate(&indexed).await.context("cannot prepare the indexed database")?;
    engine::migrate(&control).await.context("cannot prepare the control database")?;
    output.result("both databases are up to date", &json!({ "migrated": true }));
    Ok(())
}
