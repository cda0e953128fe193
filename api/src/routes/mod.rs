//! One file per resource.

pub(crate) mod diff;
pub(crate) mod health;
pub(crate) mod networks;
pub(crate) mod objects;
pub(crate) mod observer;
pub(crate) mod runs;
pub(crate) mod signing_keys;
pub(crate) mod snapshots;
