//! The snapshot crate.
