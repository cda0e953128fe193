//! Who and what is at hand while one transaction is made: popular users, contracts and assets at a height.
//!
//! Not the transaction itself (see `deeds` and `mint`). Invariant: all choices come from the block's own stream.

use super::account::{Account, Principal};
use super::draw::Draw;
use super::shape;
use super::world::{App, Asset, Sizes, World};

/// The world at one block, seen by one sender.
pub(super) struct Stage<'a> {
    /// What exists.
    pub(super) world: &'a World,
    /// The block's stream of choices.
    pub(super) draw: &'a mut Draw,
    /// How much of it exists by now.
    pub(super) sizes: Sizes,
    /// Who sends the transaction.
    pub(super) sender: Principal,
    /// Height of the block.
    pub(super) height: u64,
    /// Height of its Bitcoin block.
    pub(super) burn_height: u64,
}

impl Stage<'_> {
    /// A user, busy ones more often.
    pub(super) fn user(&mut self) -> Account {
        let rank = self.draw.zipf(self.sizes.users, shape::USER_SHIFT);
        self.world.user(rank)
    }

    /// A user other than the sender, nearly always.
    pub(super) fn other(&mut self) -> Principal {
        Principal::account(self.user())
    }

    /// A contract of a kind, popular ones more often.
    pub(super) fn app(&mut self, app: App) -> Principal {
        let rank = self.rank(app);
        self.world.app(app, rank)
    }

    /// A fungible token.
    pub(super) fn token(&mut self) -> Asset {
        let rank = self.rank(App::Token);
        self.world.token(rank)
    }

    /// A collection.
    pub(super) fn collection(&mut self) -> Asset {
        let rank = self.rank(App::Collection);
        self.world.collection(rank)
    }

    /// An amount in the smallest unit, over six orders of magnitude.
    pub(super) fn money(&mut self) -> u64 {
        self.draw.amount(10_000, 20_000_000_000)
    }

    /// The number of a token in a collection.
    pub(super) fn token_number(&mut self) -> u64 {
        self.draw.between(1, 9_999)
    }

    fn rank(&mut self, app: App) -> u64 {
        self.draw.zipf(self.sizes.apps(app), shape::CONTRACT_SHIFT)
    }
}
