//! Deterministic synthetic chains: any number of blocks from a seed, in the shapes measured on mainnet.
//!
//! Not a simulator: balances, signatures and Bitcoin are not consistent, only what an indexer looks at is. No recorded data
//! is used; the shapes are constants (`shape`).
//! Invariants: the same `Spec` gives the same bytes on every machine; block k does not depend on the number of blocks; memory
//! does not grow with it; the canonical blocks of a recording are those of `blocks` and `load`.

mod account;
mod clarity;
mod deeds;
mod draw;
mod drawn;
mod emit;
mod encode;
mod error;
mod expected;
mod fork;
mod header;
mod load;
mod model;
mod payload;
mod plan;
mod profile;
mod recording;
mod rows;
mod shape;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod transaction;
mod world;

pub use error::SyntheticError;
pub use expected::{Counts, Digests, Expected, Orphan, Reorg};
pub use load::{LoadReport, load};
pub use model::blocks;
pub use profile::Profile;
pub use recording::write_recording;

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Number of canonical blocks, genesis included: heights 0 to `blocks` − 1.
    pub blocks: u64,
    /// Any number; another seed is another chain with other accounts, contracts and hashes.
    pub seed: u64,
    /// The rhythm.
    pub profile: Profile,
    /// `mainnet` has `SP…` addresses and chain id 1, every other name `ST…` and 0x80000000; also the key in `index_progress`.
    pub network: String,
}
