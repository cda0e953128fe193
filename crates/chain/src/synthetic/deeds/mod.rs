//! What contract calls do: each deed is a call with its arguments and the events that come of it, as one piece.
//!
//! Not a virtual machine: nothing checks balances. Invariant: an event never exists apart from the call that makes it.

mod art;
mod credit;
mod earn;
mod payout;
mod trade;

use super::account::Principal;
use super::clarity::Clarity;
use super::draw::Draw;
use super::emit::Emitted;
use super::encode::{AssetName, PostCondition};
use super::shape;
use super::stage::Stage;
use super::world::Asset;

/// A call and what comes of it when it succeeds.
pub(super) struct Deed {
    /// The called contract.
    pub(super) contract: Principal,
    /// The called function.
    pub(super) function: &'static str,
    /// Its arguments.
    pub(super) args: Vec<Clarity>,
    /// What the sender wants held.
    pub(super) conditions: Vec<PostCondition>,
    /// What it emits, in order.
    pub(super) events: Vec<Emitted>,
    /// The value inside `(ok …)`.
    pub(super) result: Clarity,
}

type Recipe = fn(&mut Stage<'_>) -> Deed;

/// How often each is called, against the sum of them all.
const RECIPES: &[(u32, Recipe)] = &[
    (280, trade::swap),
    (50, trade::add_liquidity),
    (40, trade::remove_liquidity),
    (120, payout::transfer),
    (70, payout::send_all),
    (160, earn::claim),
    (45, earn::stake),
    (14, earn::stack),
    (7, earn::stack_pool),
    (36, earn::vote),
    (84, art::mint),
    (40, art::transfer),
    (70, art::list),
    (70, art::buy),
    (8, art::burn),
    (80, credit::report),
    (42, credit::borrow),
    (30, credit::bridge),
    (32, credit::register),
];

/// One call, drawn from what people do.
pub(super) fn draw(stage: &mut Stage<'_>) -> Deed {
    let recipe = if stage.draw.chance(shape::GIANT) { &(payout::giant as Recipe) } else { stage.draw.weighted(RECIPES) };
    let mut deed = recipe(stage);
    let extra = *stage.draw.weighted(shape::EXTRA_CONDITIONS);
    for _ in 0..extra {
        let condition = PostCondition::Stx { principal: stage.other(), amount: stage.money() };
        deed.conditions.push(condition);
    }
    deed
}

/// `sender` sends at least this much of a token.
fn sends_token(sender: &Principal, asset: &Asset, amount: u64) -> PostCondition {
    let asset = AssetName { contract: asset.contract.clone(), asset: asset.name.clone() };
    PostCondition::Fungible { principal: sender.clone(), asset, amount }
}

/// `sender` sends that token of a collection.
fn sends_item(sender: &Principal, asset: &Asset, id: &Clarity) -> PostCondition {
    let asset = AssetName { contract: asset.contract.clone(), asset: asset.name.clone() };
    PostCondition::NonFungible { principal: sender.clone(), asset, id: id.clone() }
}

/// A memo as contracts print it: some bytes, a few of them meant.
fn memo(draw: &mut Draw) -> Clarity {
    let length = draw.between(6, 34) as usize;
    Clarity::buffer(&draw.bytes::<34>()[..length])
}
