//! `snapshots api-key`: who may change something over HTTP. Works on the control database, so that the first key can be made
//! before the service listens anywhere.

use anyhow::Context;
use api::auth::{self, KeyError, Scope};
use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::config::Servers;
use crate::exit::{Exit, Failure};
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Make a key; its secret is shown this once.
    Create(CreateArgs),
    /// List keys without their secrets.
    List,
    /// End a key at once.
    Revoke(RevokeArgs),
}

#[derive(Args)]
pub(crate) struct CreateArgs {
    /// What it is for, as audit logs will show it.
    name: String,
    /// What it allows; each scope includes those before it: read, write, operator, admin.
    #[arg(long = "scope", default_value = "read", value_delimiter = ',')]
    scopes: Vec<Scope>,
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// Id, as `snapshots api-key list` shows it.
    id: Uuid,
}

pub(crate) async fn run(command: ApiKeyCommand, output: Output) -> anyhow::Result<()> {
    let control = control().await?;
    match command {
        ApiKeyCommand::Create(args) => create(&control, args, output).await,
        ApiKeyCommand::List => list(&control, output).await,
        ApiKeyCommand::Revoke(args) => revoke(&control, args.id, output).await,
    }
}

async fn control() -> anyhow::Result<PgPool> {
    let servers = Servers::from_env()?;
    let Some(url) = servers.control_database_url.or(servers.database_url) else {
        let failure = Failure::new(Exit::Usage, "neither CONTROL_DATABASE_URL nor DATABASE_URL is set");
        return Err(failure.hint("a service on an embedded database listens on loopback and needs no keys").into());
    };
    let pool = engine::control_pool(&url, 2).await.context("cannot connect to the control database")?;
    engine::migrate(&pool).await.context("cannot prepare the control database")?;
    Ok(pool)
}

async fn create(control: &PgPool, args: CreateArgs, output: Output) -> anyhow::Result<()> {
    let new = auth::create(control, &args.name, &args.scopes).await?;
    output.say("keep this key: it is not shown again");
    output.result(&new.key, &new);
    Ok(())
}

async fn list(control: &PgPool, output: Output) -> anyhow::Result<()> {
    let keys = auth::list(control).await?;
    let mut text = format!("{:36}  {:16} {:20} {:20} {}", "ID", "KEY", "NAME", "SCOPES", "STATE");
    for key in &keys {
        let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
        let prefix = format!("{}…", key.prefix);
        text.push_str(&format!("\n{:36}  {prefix:16} {:20} {:20} {state}", key.id, key.name, key.scopes.join(",")));
    }
    output.result(&text, &keys);
    Ok(())
}

async fn revoke(control: &PgPool, id: Uuid, output: Output) -> anyhow::Result<()> {
    auth::revoke(control, id).await.map_err(|error| match error {
        KeyError::Unknown { .. } => anyhow::Error::from(Failure::new(Exit::NotFound, error.to_string())),
        other => other.into(),
    })?;
    output.result(&format!("key {id} is revoked"), &json!({ "revoked": id }));
    Ok(())
}
