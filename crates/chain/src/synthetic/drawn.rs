//! Blocks with their transactions, each drawn from its own streams.
//!
//! Not the order in which blocks arrive (see `plan`). Invariant: a block depends on seed, profile, network, height and
//! branch, never on the number of blocks; so any block can be made at any time, twice, and in any order.

use sha2::{Digest, Sha256};

use super::account::{Account, AddressSpace, Principal};
use super::clarity::Clarity;
use super::draw::Draw;
use super::emit;
use super::encode::{ChainId, Envelope};
use super::header::{Branch, Header, Headers};
use super::shape;
use super::stage::Stage;
use super::transaction::{self, Tx};
use super::world::{Sizes, World};
use super::{Profile, Spec};

/// Streams of one height.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Winner = 0,
    Loser = 1,
    Reuse = 2,
    RowIds = 3,
    Delivery = 4,
    Dressing = 5,
    Fork = 6,
    LoserDressing = 7,
}

/// A block as it was made; `event_index` counts through `transactions` in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) header: Header,
    pub(super) transactions: Vec<Tx>,
}

impl Drawn {
    /// Number of events in the block.
    pub(super) fn events(&self) -> usize {
        self.transactions.iter().map(|tx| tx.events.len()).sum()
    }
}

/// All blocks of one seed.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    world: World,
    headers: Headers,
    profile: Profile,
}

impl Chain {
    /// The chain of a specification.
    pub(super) fn new(spec: &Spec) -> Self {
        let mut hash = Sha256::new();
        hash.update(spec.seed.to_be_bytes());
        hash.update(spec.profile.name());
        hash.update([0]);
        hash.update(&spec.network);
        let key: [u8; 32] = hash.finalize().into();
        Self {
            world: World { key, space: AddressSpace::of(&spec.network) },
            headers: Headers { key, profile: spec.profile },
            profile: spec.profile,
        }
    }

    /// A stream of choices that belongs to one height.
    pub(super) fn stream(&self, height: u64, purpose: Purpose) -> Draw {
        Draw::new(self.world.key, height * 8 + purpose as u64)
    }

    /// The header alone.
    pub(super) fn header(&self, height: u64, branch: Branch) -> Header {
        self.headers.at(height, branch)
    }

    /// The block.
    pub(super) fn block(&self, height: u64, branch: Branch) -> Drawn {
        match branch {
            Branch::Winner => self.winner(height),
            Branch::Loser { from } => self.loser(height, from),
        }
    }

    /// True if a Nakamoto header is to be shown.
    pub(super) fn has_tenures(&self) -> bool {
        self.profile.has_tenures()
    }

    /// The account that mines a tenure.
    pub(super) fn miner(&self, tenure: u64) -> Account {
        Account::derive(&self.world.key, self.world.space, "miner", tenure % 7)
    }

    fn winner(&self, height: u64) -> Drawn {
        let header = self.header(height, Branch::Winner);
        let mut draw = self.stream(height, Purpose::Winner);
        if height == 0 {
            return Drawn { header, transactions: self.genesis(&mut draw) };
        }
        let mut transactions = self.opening(&header, &mut draw);
        let users = self.profile.transactions(&mut draw);
        let users = if self.profile == Profile::Quiet && header.starts_tenure() { 0 } else { users };
        self.add_users(&header, users, &mut draw, &mut transactions);
        Drawn { header, transactions }
    }

    fn loser(&self, height: u64, from: u64) -> Drawn {
        let header = self.header(height, Branch::Loser { from });
        let mut draw = self.stream(height, Purpose::Loser);
        let mut transactions = self.opening(&header, &mut draw);
        let (same, total) = self.reused(height, false);
        let (later, _) = self.reused(height + 1, true);
        let fresh =
            (total - same.len().min(total)).max(usize::from(transactions.is_empty() && same.is_empty() && later.is_empty()));
        transactions.extend(same);
        transactions.extend(later);
        self.add_users(&header, fresh as u64, &mut draw, &mut transactions);
        Drawn { header, transactions }
    }

    /// Those user transactions of the winner at `height` that a loser holds, at the same height or (`earlier`) one below;
    /// and how many user transactions the winner has.
    fn reused(&self, height: u64, earlier: bool) -> (Vec<Tx>, usize) {
        let mut coins = self.stream(height, Purpose::Reuse);
        let portable: Vec<Tx> = self.winner(height).transactions.into_iter().filter(Tx::is_portable).collect();
        let total = portable.len();
        let kept = portable.into_iter().filter(|_| {
            let (reused, is_earlier) = (coins.chance(shape::FORK_REUSE), coins.chance(shape::FORK_LATER));
            reused && is_earlier == earlier
        });
        (kept.collect(), total)
    }

    fn add_users(&self, header: &Header, count: u64, draw: &mut Draw, transactions: &mut Vec<Tx>) {
        let sizes = Sizes::after(self.profile.transactions_below(header.height));
        for _ in 0..count {
            let rank = draw.zipf(sizes.users, shape::USER_SHIFT);
            let sender = Principal::account(self.world.user(rank));
            // Rises for every account, and no two transactions of a chain share it.
            let nonce = header.height * 256 + transactions.len() as u64;
            let kind = *draw.weighted(self.profile.kinds());
            let mut stage = self.stage(header, sizes, sender, draw);
            transactions.push(transaction::user(&mut stage, kind, nonce));
        }
    }

    /// What the miner puts first: at the start of a tenure its change and the coinbase, now and then a Bitcoin-side operation.
    fn opening(&self, header: &Header, draw: &mut Draw) -> Vec<Tx> {
        let mut transactions = vec![];
        if !header.starts_tenure() {
            return transactions;
        }
        let tenure = header.tenure;
        let envelope = Envelope {
            chain: ChainId::of(self.world.space),
            origin: self.miner(tenure.index),
            sponsor: None,
            nonce: header.height * 256,
            fee: 0,
            conditions: vec![],
        };
        if self.has_tenures() {
            let mut previous_end = [0; 32];
            hex::decode_to_slice(&header.parent.index_hash[2..], &mut previous_end).expect("identities are 32 bytes of hex");
            let blocks = (tenure.first - tenure.previous_first) as u32;
            transactions.push(transaction::tenure_change(&envelope, previous_end, blocks, draw));
        }
        transactions.push(transaction::coinbase(&Envelope { nonce: envelope.nonce + 1, ..envelope }, self.has_tenures(), draw));
        if self.profile != Profile::Quiet && draw.chance(shape::BURNCHAIN_OPERATION) {
            let sizes = Sizes::after(self.profile.transactions_below(header.height));
            let sender = Principal::account(self.world.user(draw.zipf(sizes.users, shape::USER_SHIFT)));
            let mut stage = self.stage(header, sizes, sender, draw);
            transactions.push(transaction::burnchain_operation(&mut stage, &header.burn.hash));
        }
        transactions
    }

    fn stage<'a>(&'a self, header: &Header, sizes: Sizes, sender: Principal, draw: &'a mut Draw) -> Stage<'a> {
        Stage { world: &self.world, draw, sizes, sender, height: header.height, burn_height: header.burn.height }
    }

    /// The boot contracts, all with chain id 0; the first of them also gives out the first balances.
    fn genesis(&self, draw: &mut Draw) -> Vec<Tx> {
        let boot = |nonce| Envelope {
            chain: ChainId::boot(self.world.space),
            origin: Account::boot(self.world.space),
            sponsor: None,
            nonce,
            fee: 0,
            conditions: vec![],
        };
        let mut transactions: Vec<Tx> = shape::BOOT_CONTRACTS
            .iter()
            .enumerate()
            .map(|(nonce, (name, length))| transaction::deploy(&boot(nonce as u64), (*name).to_owned(), *length, draw))
            .collect();
        let owner = &mut transactions[0];
        let contract = owner.contract_id.clone().unwrap_or_default();
        owner.events.push(emit::print(&contract, &Clarity::ascii("every chain begins somewhere")));
        for rank in 0..shape::GENESIS_BALANCES {
            let amount = draw.amount(1_000_000_000, 900_000_000_000_000);
            owner.events.push(emit::stx_mint(&self.world.user(rank).address, amount));
        }
        transactions
    }
}
