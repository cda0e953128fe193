//! Tokens handed on: plain transfers, payments to many, and the giants of several hundred events.
//!
//! Not the plain STX transfer, which is no call. Invariant: one transfer event for each payment.

use super::{Deed, memo, sends_token};
use crate::synthetic::clarity::Clarity;
use crate::synthetic::emit;
use crate::synthetic::encode::PostCondition;
use crate::synthetic::stage::Stage;
use crate::synthetic::world::App;

/// Payments of one call to many, at equally spaced quantiles.
const PAYMENTS: &[u64] = &[2, 4, 8, 14, 28, 60];
/// Claims of one giant: two events each, so 400 in the middle.
const GIANT_CLAIMS: &[u64] = &[150, 190, 210, 250];

pub(super) fn transfer(stage: &mut Stage<'_>) -> Deed {
    let (token, recipient, amount) = (stage.token(), stage.other(), stage.money());
    let note = if stage.draw.chance(600_000) { Some(memo(stage.draw)) } else { None };
    let mut events = vec![emit::ft_transfer(&token.identifier(), &stage.sender.text(), &recipient.text(), amount)];
    if let Some(note) = &note {
        events.push(emit::print(&token.contract.text(), note));
    }
    let args = vec![
        Clarity::uint(amount),
        Clarity::principal(&stage.sender),
        Clarity::principal(&recipient),
        note.map_or_else(Clarity::none, |note| Clarity::some(&note)),
    ];
    let conditions = vec![sends_token(&stage.sender, &token, amount)];
    Deed { contract: token.contract, function: "transfer", args, conditions, events, result: Clarity::bool(true) }
}

pub(super) fn send_all(stage: &mut Stage<'_>) -> Deed {
    let contract = stage.app(App::Sender);
    let (who, at) = (stage.sender.text(), contract.text());
    let (mut events, mut list, mut total) = (Vec::new(), Vec::new(), 0);
    let count = stage.draw.quantile(PAYMENTS);
    let with_memo = stage.draw.chance(500_000);
    for _ in 0..count {
        let (recipient, amount) = (stage.other(), stage.draw.amount(1_000, 400_000_000));
        total += amount;
        events.push(emit::stx_transfer(&who, &recipient.text(), amount, &[]));
        let mut fields = vec![("to", Clarity::principal(&recipient)), ("ustx", Clarity::uint(amount))];
        if with_memo {
            let note = memo(stage.draw);
            events.push(emit::print(&at, &note));
            fields.push(("memo", note));
        }
        list.push(Clarity::tuple(fields));
    }
    let conditions = vec![PostCondition::Stx { principal: stage.sender.clone(), amount: total }];
    let function = if with_memo { "send-all-with-memo" } else { "send-all" };
    Deed { contract, function, args: vec![Clarity::list(&list)], conditions, events, result: Clarity::bool(true) }
}

/// Years of rewards claimed at once: several hundred events in one transaction, which set the limits of pages and memory.
pub(super) fn giant(stage: &mut Stage<'_>) -> Deed {
    let (contract, token) = (stage.app(App::Vault), stage.token());
    let (who, at, asset) = (stage.sender.text(), contract.text(), token.identifier());
    let cycles = stage.draw.quantile(GIANT_CLAIMS);
    let (mut events, mut list) = (Vec::new(), Vec::new());
    for cycle in 0..cycles {
        let amount = stage.money();
        events.push(emit::ft_transfer(&asset, &at, &who, amount));
        let print = vec![
            ("claimed", Clarity::uint(amount)),
            ("cycle", Clarity::uint(cycle)),
            ("user", Clarity::principal(&stage.sender)),
        ];
        events.push(emit::print(&at, &Clarity::tuple(print)));
        list.push(Clarity::uint(cycle));
    }
    let args = vec![Clarity::principal(&token.contract), Clarity::list(&list)];
    Deed { contract, function: "claim-many", args, conditions: vec![], events, result: Clarity::uint(cycles) }
}
