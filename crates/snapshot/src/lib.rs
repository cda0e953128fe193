//! The snapshot crate.

pub mod archive;
pub mod assemble;
pub mod audit;
mod buffer;
pub mod chunk;
pub mod client;
pub mod columns;
pub mod cut;
pub mod diff;
pub mod drill;
pub mod fetch;
pub mod fingerprint;
pub mod grid;
pub mod height;
pub mod key;
pub mod load;
pub mod manifest;
pub mod recompress;
pub mod schema;
pub mod sign;
pub mod stock;
pub mod store;
pub mod toc;
pub mod verify;
pub mod writes;
