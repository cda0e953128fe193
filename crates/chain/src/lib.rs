//! The indexed chain: model, decoding of what a node sends, ingest, synthetic chains.

pub mod model;
