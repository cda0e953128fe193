//! Block headers: hashes, parents, times and Bitcoin anchors, each found from the height and the branch alone.
//!
//! Not the content (see `drawn`). Invariant: `index_block_hash` = SHA-512/256(block hash ‖ consensus hash), and a block's
//! parent is the block of its branch one below, or the winner's where the branch begins.

use sha2::{Digest, Sha512_256};

use super::account::derive_bytes;
use super::clarity::prefixed_hex;
use super::profile::{Profile, Tenure};
use super::shape;

/// Which of two blocks at one height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Branch {
    /// On the canonical chain.
    Winner,
    /// On a losing branch that left the winner's chain below the height `from`.
    Loser {
        /// Height of the branch's first block.
        from: u64,
    },
}

/// The two hashes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) hash: String,
    pub(super) index_hash: String,
    pub(super) consensus_hash: String,
}

/// A Bitcoin block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Burn {
    pub(super) height: u64,
    pub(super) hash: String,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// Everything of a block but its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) height: u64,
    pub(super) own: Identity,
    pub(super) parent: Identity,
    pub(super) burn: Burn,
    pub(super) parent_burn: Burn,
    pub(super) tenure: Tenure,
    /// The block's own time, which anchored blocks and genesis do not have.
    pub(super) block_time: Option<u64>,
    pub(super) miner_txid: String,
}

impl Header {
    /// Seconds since 1970 as an indexer stores them.
    pub(super) fn timestamp(&self) -> u64 {
        self.block_time.unwrap_or(self.burn.time)
    }

    /// True if the block is the first after a Bitcoin block.
    pub(super) fn starts_tenure(&self) -> bool {
        self.height > 0 && self.tenure.first == self.height
    }
}

/// Headers of one seed.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    pub(super) key: [u8; 32],
    pub(super) profile: Profile,
}

impl Headers {
    /// The header of a block.
    pub(super) fn at(&self, height: u64, branch: Branch) -> Header {
        let tenure = Tenure::at(self.profile, &self.key, height);
        let burn = self.burn(height);
        let parent_branch = match branch {
            Branch::Loser { from } if from < height => branch,
            _ => Branch::Winner,
        };
        let parent = if height == 0 { before_genesis() } else { self.identity(height - 1, parent_branch) };
        Header {
            height,
            own: self.identity(height, branch),
            parent,
            parent_burn: if height == 0 { burn.clone() } else { self.burn(height - 1) },
            burn,
            tenure,
            block_time: (height > 0 && self.profile.has_tenures()).then(|| self.time(height)),
            miner_txid: self.miner_txid(height, &tenure),
        }
    }

    fn identity(&self, height: u64, branch: Branch) -> Identity {
        let (hash, consensus) = if height == 0 {
            ([0; 32], [0; 20])
        } else {
            let purpose = if branch == Branch::Winner { "block" } else { "losing block" };
            let tenure = Tenure::at(self.profile, &self.key, height).index;
            let mut consensus = [0; 20];
            consensus.copy_from_slice(&derive_bytes(&self.key, "consensus", tenure)[..20]);
            (derive_bytes(&self.key, purpose, height), consensus)
        };
        let index: [u8; 32] = Sha512_256::new().chain_update(hash).chain_update(consensus).finalize().into();
        Identity { hash: prefixed_hex(&hash), index_hash: prefixed_hex(&index), consensus_hash: prefixed_hex(&consensus) }
    }

    /// The Bitcoin block that the block at `height` is anchored to.
    fn burn(&self, height: u64) -> Burn {
        if height == 0 {
            return Burn {
                height: shape::GENESIS_BURN_HEIGHT,
                hash: self.burn_hash(shape::GENESIS_BURN_HEIGHT),
                time: shape::GENESIS_TIME,
            };
        }
        let tenure = Tenure::at(self.profile, &self.key, height);
        let burn_height = shape::GENESIS_BURN_HEIGHT + 1 + tenure.index;
        // Found a moment before the first block of its tenure, and after genesis.
        let time = if self.profile.has_tenures() { self.time(tenure.first) - 1 } else { self.time(height) };
        Burn { height: burn_height, hash: self.burn_hash(burn_height), time }
    }

    fn burn_hash(&self, burn_height: u64) -> String {
        let mut bytes = derive_bytes(&self.key, "bitcoin", burn_height);
        bytes[..8].fill(0); // as the difficulty wants it
        prefixed_hex(&bytes)
    }

    fn miner_txid(&self, height: u64, tenure: &Tenure) -> String {
        if height == 0 { prefixed_hex(&[0; 32]) } else { prefixed_hex(&derive_bytes(&self.key, "commit", tenure.index)) }
    }

    /// Rises strictly: the jitter of up to 3 s is less than any distance between blocks.
    fn time(&self, height: u64) -> u64 {
        shape::GENESIS_TIME + height * self.profile.seconds() + height.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 4
    }
}

/// What genesis names as its parent.
fn before_genesis() -> Identity {
    let ones = prefixed_hex(&[0xff; 32]);
    Identity { hash: ones.clone(), index_hash: ones, consensus_hash: prefixed_hex(&[0; 20]) }
}

#[cfg(test)]
mod tests {
    use super::{Branch, Headers, Profile};

    fn headers() -> Headers {
        Headers { key: [5; 32], profile: Profile::Nakamoto }
    }

    #[test]
    fn genesis_has_the_index_hash_that_every_test_network_shares() {
        let genesis = headers().at(0, Branch::Winner);
        assert_eq!(genesis.own.index_hash, "0x55c9861be5cff984a20ce6d99d4aa65941412889bdc665094136429b84f8c2ee");
    }

    #[test]
    fn parents_link_by_both_hashes_along_each_branch() {
        let headers = headers();
        let loser = |height| headers.at(height, Branch::Loser { from: 10 });
        let winner = |height| headers.at(height, Branch::Winner);
        assert_eq!(winner(10).parent, winner(9).own);
        assert_eq!(loser(10).parent, winner(9).own);
        assert_eq!(loser(11).parent, loser(10).own);
        assert_ne!(loser(10).own.hash, winner(10).own.hash);
    }

    #[test]
    fn times_and_bitcoin_heights_rise() {
        for profile in [Profile::Nakamoto, Profile::Anchored, Profile::Quiet] {
            let headers = Headers { key: [5; 32], profile };
            for height in 1..1_000 {
                let (below, above) = (headers.at(height - 1, Branch::Winner), headers.at(height, Branch::Winner));
                assert!(below.timestamp() < above.timestamp());
                assert!(above.burn.time <= above.timestamp() && below.burn.time <= above.burn.time);
                assert!((0..=1).contains(&(above.burn.height - below.burn.height)));
            }
        }
    }
}
