//! Exchange: swaps over one or several pools, and liquidity put in and taken out.
//!
//! Not an order book, and prices mean nothing. Invariant: each hop moves one asset in and one out, and prints both.

use super::{Deed, sends_token};
use crate::synthetic::account::Principal;
use crate::synthetic::clarity::Clarity;
use crate::synthetic::emit::{self, Emitted};
use crate::synthetic::encode::PostCondition;
use crate::synthetic::stage::Stage;
use crate::synthetic::world::{App, Asset, World};

/// Pools that one swap goes through.
const HOPS: &[(u32, u64)] = &[(44, 1), (28, 2), (16, 3), (9, 4), (3, 6)];

pub(super) fn swap(stage: &mut Stage<'_>) -> Deed {
    let hops = *stage.draw.weighted(HOPS);
    let contract = if hops == 1 { stage.app(App::Pool) } else { stage.app(App::Router) };
    let first = Side::draw(stage);
    let (mut give, mut amount) = (first.clone(), stage.money());
    let paid = amount;
    let (mut events, mut args) = (Vec::new(), Vec::new());
    for hop in 0..hops {
        let pool = if hops == 1 { contract.clone() } else { stage.app(App::Pool) };
        let take = Side::Token(stage.token());
        let received = stage.money();
        hop_events(stage, (&pool, hop), (&give, amount), (&take, received), &mut events);
        args.push(Clarity::principal(&take.contract(&pool)));
        (give, amount) = (take, received);
    }
    args.extend([Clarity::uint(paid), Clarity::some(&Clarity::uint(amount - amount / 100))]);
    let conditions = vec![first.condition(&stage.sender, paid)];
    let function = if hops == 1 { "swap-x-for-y" } else { "swap-route" };
    Deed { contract, function, args, conditions, events, result: Clarity::uint(amount) }
}

pub(super) fn add_liquidity(stage: &mut Stage<'_>) -> Deed {
    let (pool, token) = (stage.app(App::Pool), stage.token());
    let (stx, tokens, shares) = (stage.money(), stage.money(), stage.money());
    let (who, at) = (stage.sender.text(), pool.text());
    let events = vec![
        emit::stx_transfer(&who, &at, stx, &[]),
        emit::ft_transfer(&token.identifier(), &who, &at, tokens),
        emit::ft_mint(&World::liquidity(&pool).identifier(), &who, shares),
        emit::print(&at, &position(stage, "add-liquidity", (stx, tokens, shares))),
    ];
    let conditions =
        vec![PostCondition::Stx { principal: stage.sender.clone(), amount: stx }, sends_token(&stage.sender, &token, tokens)];
    let args = vec![Clarity::principal(&token.contract), Clarity::uint(stx), Clarity::some(&Clarity::uint(tokens))];
    Deed { contract: pool, function: "add-liquidity", args, conditions, events, result: Clarity::uint(shares) }
}

pub(super) fn remove_liquidity(stage: &mut Stage<'_>) -> Deed {
    let (pool, token) = (stage.app(App::Pool), stage.token());
    let (stx, tokens, shares) = (stage.money(), stage.money(), stage.money());
    let (who, at, share) = (stage.sender.text(), pool.text(), World::liquidity(&pool));
    let events = vec![
        emit::ft_burn(&share.identifier(), &who, shares),
        emit::stx_transfer(&at, &who, stx, &[]),
        emit::ft_transfer(&token.identifier(), &at, &who, tokens),
        emit::print(&at, &position(stage, "remove-liquidity", (stx, tokens, shares))),
    ];
    let conditions = vec![sends_token(&stage.sender, &share, shares)];
    let args = vec![Clarity::principal(&token.contract), Clarity::uint(shares)];
    Deed { contract: pool, function: "remove-liquidity", args, conditions, events, result: Clarity::bool(true) }
}

/// What one side of a pool holds.
#[derive(Clone)]
enum Side {
    Stx,
    Token(Asset),
}

impl Side {
    fn draw(stage: &mut Stage<'_>) -> Self {
        if stage.draw.chance(450_000) { Self::Stx } else { Self::Token(stage.token()) }
    }

    fn transfer(&self, from: &str, to: &str, amount: u64) -> Emitted {
        match self {
            Self::Stx => emit::stx_transfer(from, to, amount, &[]),
            Self::Token(asset) => emit::ft_transfer(&asset.identifier(), from, to, amount),
        }
    }

    fn condition(&self, sender: &Principal, amount: u64) -> PostCondition {
        match self {
            Self::Stx => PostCondition::Stx { principal: sender.clone(), amount },
            Self::Token(asset) => sends_token(sender, asset, amount),
        }
    }

    /// The token's contract; STX is held by the pool itself.
    fn contract(&self, pool: &Principal) -> Principal {
        match self {
            Self::Stx => pool.clone(),
            Self::Token(asset) => asset.contract.clone(),
        }
    }
}

fn hop_events(
    stage: &mut Stage<'_>,
    (pool, hop): (&Principal, u64),
    give: (&Side, u64),
    take: (&Side, u64),
    events: &mut Vec<Emitted>,
) {
    let (who, at) = (stage.sender.text(), pool.text());
    events.push(give.0.transfer(&who, &at, give.1));
    if stage.draw.chance(430_000) {
        let treasury = stage.app(App::Council).text();
        events.push(emit::stx_transfer(&who, &treasury, (give.1 / 400).max(1), &[]));
    }
    events.push(take.0.transfer(&at, &who, take.1));
    let print = Clarity::tuple(vec![
        ("action", Clarity::ascii("swap-x-for-y")),
        ("hop", Clarity::uint(hop)),
        ("pool-id", Clarity::uint(stage.draw.between(1, 90))),
        ("sender", Clarity::principal(&stage.sender)),
        ("token-x", Clarity::principal(&give.0.contract(pool))),
        ("token-y", Clarity::principal(&take.0.contract(pool))),
        ("dx", Clarity::uint(give.1)),
        ("dy", Clarity::uint(take.1)),
        ("fee", Clarity::uint(give.1 / 400)),
        ("balance-x", Clarity::uint(stage.money())),
        ("balance-y", Clarity::uint(stage.money())),
    ]);
    events.push(emit::print(&at, &print));
}

fn position(stage: &mut Stage<'_>, action: &str, (stx, tokens, shares): (u64, u64, u64)) -> Clarity {
    Clarity::tuple(vec![
        ("action", Clarity::ascii(action)),
        ("x-amount", Clarity::uint(stx)),
        ("y-amount", Clarity::uint(tokens)),
        ("shares", Clarity::uint(shares)),
        ("provider", Clarity::principal(&stage.sender)),
        ("total-shares", Clarity::uint(stage.money())),
        ("burn-height", Clarity::uint(stage.burn_height)),
    ])
}
