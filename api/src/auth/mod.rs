//! Who is asking, and what they may do.
//!
//! Invariant: a request that can change something reaches its handler only with an [`Actor`] that may, whichever route it is:
//! the guard looks at the method, so a new route is closed until somebody opens it.

mod guard;
mod keys;
mod local;
mod scope;

pub(crate) use guard::{guard, guard_ingest, guard_operations};
pub use keys::{ApiKey, KeyError, NewKey, create, list, revoke};
pub use scope::Scope;

/// Whether requests need a key to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The service listens on loopback alone: who reaches it straight is trusted; a browser of another site or a proxy is not.
    Loopback,
    /// A key with the right scope is needed.
    Keys,
}

/// Who did something, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(pub String);

/// Whether who asks may see what is not for everybody, on routes that everybody may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insider(pub(crate) bool);
