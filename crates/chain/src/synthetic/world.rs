//! What exists on the chain: users, applications, tokens, collections; each found from its rank alone.
//!
//! Nothing is stored: the hundred-thousandth user costs as much as the first, and memory does not grow with the chain.
//! Invariant: rank `r` of a kind is the same thing at every height; how many ranks there are grows with height (`Sizes`).

use super::account::{Account, AddressSpace, Principal, derive_bytes};
use super::shape;

/// Kinds of contracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum App {
    Pool,
    Router,
    Vault,
    Lending,
    Bridge,
    Market,
    Registry,
    Oracle,
    Council,
    Sender,
    Token,
    Collection,
}

impl App {
    /// Tail of the contract's name.
    fn suffix(self) -> &'static str {
        match self {
            Self::Pool => "pool-v1",
            Self::Router => "router-v2",
            Self::Vault => "vault",
            Self::Lending => "credit-v1",
            Self::Bridge => "bridge",
            Self::Market => "bazaar-v3",
            Self::Registry => "names",
            Self::Oracle => "oracle",
            Self::Council => "council",
            Self::Sender => "send-all",
            Self::Token => "token",
            Self::Collection => "club",
        }
    }
}

/// A fungible token or a collection.
#[derive(Debug, Clone)]
pub(super) struct Asset {
    /// Where it is defined.
    pub(super) contract: Principal,
    /// Its name in there.
    pub(super) name: String,
}

impl Asset {
    /// `S….contract::asset`.
    pub(super) fn identifier(&self) -> String {
        format!("{}::{}", self.contract.text(), self.name)
    }
}

/// How many of each there are so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Accounts that may act.
    pub(super) users: u64,
    /// Contracts of all kinds.
    contracts: u64,
}

impl Sizes {
    /// After about `transactions` transactions: users in proportion, contracts with the square root.
    pub(super) fn after(transactions: u64) -> Self {
        Self {
            users: shape::FIRST_USERS + transactions / shape::TRANSACTIONS_PER_USER,
            contracts: shape::FIRST_CONTRACTS + shape::CONTRACTS_PER_ROOT * transactions.isqrt(),
        }
    }

    /// Contracts of one kind, at least one.
    pub(super) fn apps(&self, app: App) -> u64 {
        (self.contracts * shape::app_share(app) / 100).max(1)
    }
}

/// Everything derived from the seed.
#[derive(Debug, Clone)]
pub(super) struct World {
    /// Seed, profile and network, hashed.
    pub(super) key: [u8; 32],
    /// Which addresses.
    pub(super) space: AddressSpace,
}

impl World {
    /// The user of that rank.
    pub(super) fn user(&self, rank: u64) -> Account {
        Account::derive(&self.key, self.space, "user", rank)
    }

    /// The application of that kind and rank; makers deploy several.
    pub(super) fn app(&self, app: App, rank: u64) -> Principal {
        let account = Account::derive(&self.key, self.space, app.suffix(), rank / shape::CONTRACTS_PER_MAKER);
        Principal { account, contract: format!("{}-{}", self.name(app.suffix(), rank), app.suffix()) }
    }

    /// The fungible token of that rank.
    pub(super) fn token(&self, rank: u64) -> Asset {
        Asset { contract: self.app(App::Token, rank), name: self.name(App::Token.suffix(), rank) }
    }

    /// The collection of that rank.
    pub(super) fn collection(&self, rank: u64) -> Asset {
        Asset { contract: self.app(App::Collection, rank), name: self.name(App::Collection.suffix(), rank) }
    }

    /// The liquidity token that a pool itself defines.
    pub(super) fn liquidity(pool: &Principal) -> Asset {
        Asset { contract: pool.clone(), name: "pool-share".to_owned() }
    }

    /// A contract of the chain itself.
    pub(super) fn boot(&self, name: &str) -> Principal {
        Principal { account: Account::boot(self.space), contract: name.to_owned() }
    }

    /// Two words, in an order that the seed sets; unique for a family.
    fn name(&self, family: &str, rank: u64) -> String {
        let offset = u64::from(derive_bytes(&self.key, family, u64::MAX)[0]);
        let (first, second) = (shape::FIRST_WORDS, shape::SECOND_WORDS);
        let pairs = (first.len() * second.len()) as u64;
        // 389 is prime and no factor of the number of pairs, so every pair comes once before any comes again.
        let place = ((rank * 389 + offset) % pairs) as usize;
        let words = format!("{}-{}", first[place % first.len()], second[place / first.len()]);
        if rank < pairs { words } else { format!("{words}-{}", rank / pairs) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{AddressSpace, App, Sizes, World};

    #[test]
    fn contracts_have_names_of_their_own() {
        let world = World { key: [9; 32], space: AddressSpace::Mainnet };
        let ids: HashSet<String> = (0..3_000).map(|rank| world.app(App::Pool, rank).text()).collect();
        assert_eq!(ids.len(), 3_000);
    }

    #[test]
    fn contracts_grow_with_the_square_root_of_transactions() {
        let pools = |transactions| Sizes::after(transactions).apps(App::Pool) as f64;
        let ratio = pools(4_000_000) / pools(1_000_000);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
    }
}
