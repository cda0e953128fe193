//! `snapshots signing-key`: the keys that sign snapshots. They are files; the service need not run.

use clap::{Args, Subcommand};
use serde_json::json;
use snapshot::sign::{KeyState, PublishedKey};

use crate::config::DataDirArgs;
use crate::output::Output;
use crate::signing::{Signing, failure};

#[derive(Subcommand)]
pub(crate) enum SigningKeyCommand {
    /// Make the first two keys: one that signs, and the next.
    Generate(SigningKeyArgs),
    /// Show the public keys.
    Show(SigningKeyArgs),
    /// Let the next key sign from now on, make a new next one, and destroy the secret half of the old one.
    Rotate(SigningKeyArgs),
}

/// The keys are in `signing-keys` of the data directory, or where SNAPSHOTS_SIGNING_KEY_DIR says. With
/// SNAPSHOTS_SIGNING_PASSWORD_FILE they are encrypted.
#[derive(Args)]
pub(crate) struct SigningKeyArgs {
    #[command(flatten)]
    dir: DataDirArgs,
}

pub(crate) fn run(command: SigningKeyCommand, output: Output) -> anyhow::Result<()> {
    let signing = Signing::from_env()?;
    let keyring = |args: &SigningKeyArgs| signing.keyring(&args.dir.path());
    let keys = match &command {
        SigningKeyCommand::Generate(args) => keyring(args).generate(),
        SigningKeyCommand::Show(args) => keyring(args).published(),
        SigningKeyCommand::Rotate(args) => keyring(args).rotate(),
    };
    let keys = keys.map_err(failure)?;
    output.result(&text(&keys), &json!({ "keys": keys }));
    Ok(())
}

fn text(keys: &[PublishedKey]) -> String {
    let line = |key: &PublishedKey| {
        let state = match key.state {
            KeyState::Active => "active ",
            KeyState::Next => "next   ",
            KeyState::Retired => "retired",
        };
        format!("{state}  {}  {}", key.id, key.public_key)
    };
    let mut lines: Vec<String> = keys.iter().map(line).collect();
    lines.push("readers should pin both the active and the next one: snapshots restore --public-key … --public-key …".into());
    lines.join("\n")
}
