//! Collections: minting, giving away, listing, buying, burning.
//!
//! Not a register of who owns what. Invariant: an event's token id is the one in the arguments.

use super::{Deed, sends_item};
use crate::synthetic::clarity::Clarity;
use crate::synthetic::emit;
use crate::synthetic::encode::PostCondition;
use crate::synthetic::stage::Stage;
use crate::synthetic::world::App;

pub(super) fn mint(stage: &mut Stage<'_>) -> Deed {
    let (collection, price) = (stage.collection(), stage.draw.amount(1_000_000, 90_000_000));
    let (who, asset) = (stage.sender.text(), collection.identifier());
    let (artist, first) = (stage.other(), stage.token_number());
    let count = 1 + stage.draw.geometric(820_000, 24);
    let mut events = vec![emit::stx_transfer(&who, &artist.text(), price * count, &[])];
    let mut ids = Vec::new();
    for number in first..first + count {
        let id = Clarity::uint(number);
        events.push(emit::nft_mint(&asset, &who, &id));
        ids.push(id);
    }
    events.push(emit::print(&collection.contract.text(), &trade_print(stage, "mint", first, price)));
    let conditions = vec![PostCondition::Stx { principal: stage.sender.clone(), amount: price * count }];
    Deed {
        contract: collection.contract,
        function: "claim",
        args: vec![Clarity::list(&ids)],
        conditions,
        events,
        result: Clarity::bool(true),
    }
}

pub(super) fn transfer(stage: &mut Stage<'_>) -> Deed {
    let (collection, recipient) = (stage.collection(), stage.other());
    let id = Clarity::uint(stage.token_number());
    let events = vec![emit::nft_transfer(&collection.identifier(), &stage.sender.text(), &recipient.text(), &id)];
    let conditions = vec![sends_item(&stage.sender, &collection, &id)];
    let args = vec![id, Clarity::principal(&stage.sender), Clarity::principal(&recipient)];
    Deed { contract: collection.contract, function: "transfer", args, conditions, events, result: Clarity::bool(true) }
}

pub(super) fn list(stage: &mut Stage<'_>) -> Deed {
    let (market, collection) = (stage.app(App::Market), stage.collection());
    let (number, price) = (stage.token_number(), stage.draw.amount(1_000_000, 9_000_000_000));
    let print = trade_print(stage, "list-asset", number, price);
    let mut events = vec![emit::print(&market.text(), &print)];
    if stage.draw.chance(400_000) {
        let (asset, who) = (collection.identifier(), stage.sender.text());
        events.insert(0, emit::nft_transfer(&asset, &who, &market.text(), &Clarity::uint(number)));
    }
    let args = vec![Clarity::principal(&collection.contract), Clarity::uint(number), Clarity::uint(price), Clarity::uint(250u64)];
    Deed { contract: market, function: "list-asset", args, conditions: vec![], events, result: Clarity::bool(true) }
}

pub(super) fn buy(stage: &mut Stage<'_>) -> Deed {
    let (market, collection) = (stage.app(App::Market), stage.collection());
    let (number, price) = (stage.token_number(), stage.draw.amount(1_000_000, 9_000_000_000));
    let (seller, artist, id) = (stage.other(), stage.other(), Clarity::uint(number));
    let (who, at) = (stage.sender.text(), market.text());
    let events = vec![
        emit::stx_transfer(&who, &seller.text(), price, &[]),
        emit::stx_transfer(&who, &artist.text(), price / 20, &[]),
        emit::stx_transfer(&who, &at, price / 50, &[]),
        emit::nft_transfer(&collection.identifier(), &at, &who, &id),
        emit::print(&at, &trade_print(stage, "purchase-asset", number, price)),
    ];
    let conditions = vec![
        PostCondition::Stx { principal: stage.sender.clone(), amount: price + price / 20 + price / 50 },
        sends_item(&market, &collection, &id),
    ];
    let args = vec![Clarity::principal(&collection.contract), id];
    Deed { contract: market, function: "purchase-asset", args, conditions, events, result: Clarity::bool(true) }
}

pub(super) fn burn(stage: &mut Stage<'_>) -> Deed {
    let collection = stage.collection();
    let ids: Vec<Clarity> = (0..stage.draw.between(1, 4)).map(|_| Clarity::uint(stage.token_number())).collect();
    let (who, asset) = (stage.sender.text(), collection.identifier());
    let events = ids.iter().map(|id| emit::nft_burn(&asset, &who, id)).collect();
    Deed {
        contract: collection.contract,
        function: "burn",
        args: vec![Clarity::list(&ids)],
        conditions: vec![],
        events,
        result: Clarity::bool(true),
    }
}

fn trade_print(stage: &mut Stage<'_>, action: &str, number: u64, price: u64) -> Clarity {
    Clarity::tuple(vec![
        ("action", Clarity::ascii(action)),
        (
            "payload",
            Clarity::tuple(vec![
                ("maker", Clarity::principal(&stage.sender)),
                ("token-id", Clarity::uint(number)),
                ("price", Clarity::uint(price)),
                (
                    "royalty",
                    Clarity::tuple(vec![("percent", Clarity::uint(500u64)), ("recipient", Clarity::principal(&stage.other()))]),
                ),
            ]),
        ),
    ])
}
