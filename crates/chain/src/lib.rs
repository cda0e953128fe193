//! The indexed chain: model, decoding of what a node sends, ingest, synthetic chains.

pub mod address;
pub mod canonical;
pub mod clarity;
mod cursor;
pub mod digest;
pub mod ingest;
pub mod json;
pub mod migrate;
pub mod model;
pub mod payload;
pub mod reader;
pub mod recording;
pub mod synthetic;
pub mod transaction;

pub use cursor::Truncated;
pub use ingest::Ingest;
pub use migrate::migrate;
