//! The binary `snapshots`.
fn main() {}
