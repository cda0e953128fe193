//! The three rhythms a chain can have.
//!
//! Not what transactions do (see `deeds`). Invariant: a block's tenure and time follow from its height alone.

use super::account::derive_bytes;
use super::draw::Draw;
use super::shape::{self, Kind};

/// How many transactions blocks hold, how fast they come, and how they are anchored to Bitcoin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Mainnet since 2024: a block each 5 s, 3.2 transactions and about 16 events a block, a Bitcoin block each 60 to 120 blocks.
    Nakamoto,
    /// Mainnet before: about 120 transactions a block, one Bitcoin block each.
    Anchored,
    /// A test network: one transaction a block, nearly always a transfer.
    Quiet,
}

impl Profile {
    /// `nakamoto`, `anchored` or `quiet`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nakamoto => "nakamoto",
            Self::Anchored => "anchored",
            Self::Quiet => "quiet",
        }
    }

    /// True if blocks are signed by signers and come several to a Bitcoin block.
    pub(super) fn has_tenures(self) -> bool {
        self != Self::Anchored
    }

    /// About how many transactions there are below a height.
    pub(super) fn transactions_below(self, height: u64) -> u64 {
        match self {
            Self::Nakamoto => height * 16 / 5,
            Self::Anchored => height * 120,
            Self::Quiet => height,
        }
    }

    /// User transactions of one block.
    pub(super) fn transactions(self, draw: &mut Draw) -> u64 {
        match self {
            Self::Nakamoto => 1 + draw.geometric(shape::NAKAMOTO_MORE, shape::NAKAMOTO_CAP - 1),
            Self::Anchored => draw.quantile(shape::ANCHORED_TRANSACTIONS),
            Self::Quiet => 1,
        }
    }

    /// Shares of what users send.
    pub(super) fn kinds(self) -> &'static [(u32, Kind)] {
        match self {
            Self::Nakamoto => shape::KINDS,
            Self::Anchored => shape::ANCHORED_KINDS,
            Self::Quiet => shape::QUIET_KINDS,
        }
    }

    /// Seconds between blocks.
    pub(super) fn seconds(self) -> u64 {
        if self.has_tenures() { shape::NAKAMOTO_SECONDS } else { shape::ANCHORED_SECONDS }
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Nakamoto, Self::Anchored, Self::Quiet]
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| format!("unknown profile {name}: choose nakamoto, anchored or quiet"))
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

/// The blocks that share one Bitcoin block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure {
    /// Number of tenures below; genesis is in none and counts as 0, as does the first.
    pub(super) index: u64,
    /// Height of its first block.
    pub(super) first: u64,
    /// Height of the first block of the tenure before, itself for the first.
    pub(super) previous_first: u64,
}

impl Tenure {
    /// The tenure of the block at `height` ≥ 1.
    pub(super) fn at(profile: Profile, key: &[u8; 32], height: u64) -> Self {
        if !profile.has_tenures() {
            let index = height.saturating_sub(1);
            return Self { index, first: height.max(1), previous_first: index.max(1) };
        }
        let mut index = height / shape::TENURE_BLOCKS + 1;
        while index > 0 && start(key, index) > height {
            index -= 1;
        }
        Self { index, first: start(key, index), previous_first: start(key, index.saturating_sub(1)) }
    }
}

fn start(key: &[u8; 32], index: u64) -> u64 {
    if index == 0 {
        return 1;
    }
    let jitter = u64::from(derive_bytes(key, "tenure", index)[0]) % (2 * shape::TENURE_JITTER + 1);
    index * shape::TENURE_BLOCKS + jitter - shape::TENURE_JITTER
}

#[cfg(test)]
mod tests {
    use super::{Profile, Tenure};

    #[test]
    fn tenures_have_60_to_120_blocks_and_follow_each_other() {
        let mut last = Tenure::at(Profile::Nakamoto, &[1; 32], 1);
        for height in 2..20_000 {
            let tenure = Tenure::at(Profile::Nakamoto, &[1; 32], height);
            if tenure.index != last.index {
                assert_eq!((tenure.index, tenure.first, tenure.previous_first), (last.index + 1, height, last.first));
                assert!((60..=120).contains(&(height - last.first)), "{last:?} {tenure:?}");
                last = tenure;
            }
        }
    }

    #[test]
    fn anchored_blocks_are_tenures_of_their_own() {
        let tenure = Tenure::at(Profile::Anchored, &[1; 32], 7);
        assert_eq!(tenure, Tenure { index: 6, first: 7, previous_first: 6 });
    }

    #[test]
    fn profiles_are_found_by_name() {
        assert_eq!("quiet".parse(), Ok(Profile::Quiet));
        assert_eq!("loud".parse::<Profile>(), Err("unknown profile loud: choose nakamoto, anchored or quiet".to_owned()));
    }
}
