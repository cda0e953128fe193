//! `snapshots recovery-key`: an age identity, made where it is kept. Stock `age-keygen` makes the same.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use snapshot::encrypt::Identities;

use crate::exit::{Exit, Failure};
use crate::output::Output;

#[derive(Args)]
pub(crate) struct RecoveryKeyArgs {
    /// File to write the identity to; it must not be there yet. Whoever has it reads every snapshot of the full profile: keep copies
    /// away from the database, and never give it to the service.
    file: PathBuf,
}

pub(crate) fn run(args: &RecoveryKeyArgs, output: Output) -> anyhow::Result<()> {
    let recipient = Identities::generate(&args.file).map_err(|error| {
        let failure = Failure::caused(Exit::Refused, "no identity was made", error);
        failure.hint("choose a file that is not there yet, in a directory that you can write")
    })?;
    let value = json!({ "recipient": recipient, "identityFile": args.file });
    output.result(&recipient, &value);
    Ok(())
}
