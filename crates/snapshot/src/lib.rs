//! The snapshot crate.

pub mod assemble;
pub mod audit;
pub mod chunk;
pub mod columns;
pub mod cut;
pub mod grid;
pub mod key;
pub mod store;
pub mod height;
pub mod manifest;
pub mod verify;
pub mod archive;
pub mod client;
pub mod schema;
pub mod toc;
