//! Lending, bridging, price reports and names: the calls whose prints are long.
//!
//! Not markets: rates are drawn. Invariant: what a bridge or a loan creates it mints, what it takes back it burns.

use super::Deed;
use crate::synthetic::clarity::Clarity;
use crate::synthetic::emit;
use crate::synthetic::encode::PostCondition;
use crate::synthetic::stage::Stage;
use crate::synthetic::world::{App, Asset};

/// Prints of one price report: a third of the calls say nothing.
const REPORTS: &[(u32, u64)] = &[(34, 0), (40, 1), (16, 2), (10, 5)];

pub(super) fn report(stage: &mut Stage<'_>) -> Deed {
    let contract = stage.app(App::Oracle);
    let (at, mut events, mut prices) = (contract.text(), Vec::new(), Vec::new());
    for _ in 0..*stage.draw.weighted(REPORTS) {
        let price = stage.money();
        let print = Clarity::tuple(vec![
            ("type", Clarity::ascii("price-feed")),
            ("feed", Clarity::buffer(&stage.draw.bytes::<32>())),
            ("price", Clarity::int(i128::from(price))),
            ("exponent", Clarity::int(-8)),
            ("confidence", Clarity::uint(price / 1_000)),
            ("ema-price", Clarity::int(i128::from(price - price / 200))),
            ("publish-height", Clarity::uint(stage.height)),
        ]);
        events.push(emit::print(&at, &print));
        prices.push(Clarity::uint(price));
    }
    let args = vec![Clarity::list(&prices), Clarity::buffer(&stage.draw.bytes::<65>())];
    Deed { contract, function: "update-feeds", args, conditions: vec![], events, result: Clarity::uint(prices.len() as u64) }
}

pub(super) fn borrow(stage: &mut Stage<'_>) -> Deed {
    let (contract, lent, pledged) = (stage.app(App::Lending), stage.token(), stage.token());
    let (loan, pledge) = (stage.money(), stage.money());
    let (who, at) = (stage.sender.text(), contract.text());
    let state = reserve(stage, &lent);
    let events = vec![
        emit::ft_transfer(&pledged.identifier(), &who, &at, pledge),
        emit::ft_mint(&lent.identifier(), &who, loan),
        emit::print(&at, &state),
        emit::print(
            &at,
            &Clarity::tuple(vec![
                ("type", Clarity::ascii("borrow")),
                ("amount", Clarity::uint(loan)),
                ("user", Clarity::principal(&stage.sender)),
                ("pledge", Clarity::some(&Clarity::uint(pledge))),
                ("reserve", state),
            ]),
        ),
    ];
    let args = vec![
        Clarity::principal(&lent.contract),
        Clarity::principal(&pledged.contract),
        Clarity::uint(loan),
        Clarity::uint(pledge),
        Clarity::none(),
    ];
    let conditions = vec![super::sends_token(&stage.sender, &pledged, pledge)];
    Deed { contract, function: "borrow", args, conditions, events, result: Clarity::uint(loan) }
}

pub(super) fn bridge(stage: &mut Stage<'_>) -> Deed {
    let (contract, token, amount) = (stage.app(App::Bridge), stage.token(), stage.draw.amount(1_000, 900_000_000));
    let (who, at, asset) = (stage.sender.text(), contract.text(), token.identifier());
    let into = stage.draw.chance(550_000);
    let bitcoin_tx = Clarity::buffer(&stage.draw.bytes::<32>());
    let print = Clarity::tuple(vec![
        ("topic", Clarity::ascii(if into { "completed-deposit" } else { "withdrawal-create" })),
        ("amount", Clarity::uint(amount)),
        ("bitcoin-txid", bitcoin_tx.clone()),
        ("output-index", Clarity::uint(stage.draw.below(4))),
        ("burn-hash", Clarity::buffer(&stage.draw.bytes::<32>())),
        ("burn-height", Clarity::uint(stage.burn_height)),
        ("sweep-txid", Clarity::buffer(&stage.draw.bytes::<32>())),
    ]);
    let moved = if into { emit::ft_mint(&asset, &who, amount) } else { emit::ft_burn(&asset, &who, amount) };
    let args = vec![bitcoin_tx, Clarity::uint(amount), Clarity::principal(&stage.sender)];
    let function = if into { "complete-deposit" } else { "start-withdrawal" };
    Deed {
        contract,
        function,
        args,
        conditions: vec![],
        events: vec![moved, emit::print(&at, &print)],
        result: Clarity::bool(true),
    }
}

pub(super) fn register(stage: &mut Stage<'_>) -> Deed {
    let contract = stage.app(App::Registry);
    let (who, at, fee) = (stage.sender.text(), contract.text(), stage.draw.amount(10_000, 60_000_000));
    let names = Asset { contract: contract.clone(), name: "names".to_owned() };
    let name = format!("n{:x}", stage.draw.bits() >> 24);
    let id = Clarity::tuple(vec![("name", Clarity::buffer(name.as_bytes())), ("namespace", Clarity::buffer(b"stx"))]);
    let print = Clarity::tuple(vec![
        ("attachment", Clarity::none()),
        ("op", Clarity::ascii("name-register")),
        ("label", Clarity::utf8(&name)),
        ("owner", Clarity::principal(&stage.sender)),
        ("fee", Clarity::uint(fee)),
    ]);
    let events = vec![emit::stx_burn(&who, fee), emit::nft_mint(&names.identifier(), &who, &id), emit::print(&at, &print)];
    let conditions = vec![PostCondition::Stx { principal: stage.sender.clone(), amount: fee }];
    let args = vec![Clarity::buffer(b"stx"), Clarity::buffer(name.as_bytes()), Clarity::buffer(&stage.draw.bytes::<20>())];
    Deed { contract, function: "name-register", args, conditions, events, result: Clarity::bool(true) }
}

fn reserve(stage: &mut Stage<'_>, asset: &Asset) -> Clarity {
    Clarity::tuple(vec![
        ("type", Clarity::ascii("reserve-state")),
        ("asset", Clarity::principal(&asset.contract)),
        ("available", Clarity::uint(stage.money())),
        ("borrowed", Clarity::uint(stage.money())),
        ("borrow-index", Clarity::uint(stage.draw.between(1_000_000_000, 1_400_000_000))),
        ("liquidity-index", Clarity::uint(stage.draw.between(1_000_000_000, 1_200_000_000))),
        ("rate", Clarity::uint(stage.draw.below(20_000_000))),
        ("updated", Clarity::uint(stage.height)),
    ])
}
