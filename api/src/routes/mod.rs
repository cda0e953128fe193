//! One file per resource.

pub(crate) mod archives;
pub(crate) mod audit;
pub(crate) mod decisions;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod networks;
pub(crate) mod objects;
pub(crate) mod observer;
pub(crate) mod pauses;
pub(crate) mod retries;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod signing_keys;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod workers;
