//! Who hears of alarms, from the environment alone: an address of a chat holds its token, so it is never an argument.

use std::path::Path;

use workflows::notify::Receivers;

use crate::exit::{Exit, Failure};
use crate::signing::first_line;

const WEBHOOK: &str = "SNAPSHOTS_ALARM_WEBHOOK";
const SECRET: &str = "SNAPSHOTS_ALARM_SECRET_FILE";
const HEARTBEAT: &str = "SNAPSHOTS_HEARTBEAT_URL";

/// Reads `SNAPSHOTS_ALARM_WEBHOOK`, `SNAPSHOTS_ALARM_SECRET_FILE` and `SNAPSHOTS_HEARTBEAT_URL`.
pub(crate) fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Receivers, Failure> {
    let secret = var(SECRET).map(|file| first_line(Path::new(&file), SECRET)).transpose()?;
    let (alarms, heartbeat) = (var(WEBHOOK), var(HEARTBEAT));
    Receivers::new(alarms.as_deref(), secret.as_deref(), heartbeat.as_deref()).map_err(|(place, bad)| {
        let variable = [WEBHOOK, SECRET, HEARTBEAT][place];
        let failure = Failure::caused(Exit::Usage, format!("{variable} is of no use"), bad);
        failure.hint("an address is like https://hooks.example/…; a secret is made with `echo whsec_$(openssl rand -base64 32)`")
    })
}
