//! Yield: staking, claiming, stacking STX, voting with what is staked.
//!
//! Not the proof-of-transfer rules: cycles and heights only look right. Invariant: STX are locked by the boot contract alone.

use super::{Deed, sends_token};
use crate::synthetic::clarity::Clarity;
use crate::synthetic::emit;
use crate::synthetic::stage::Stage;
use crate::synthetic::world::App;

/// Bitcoin blocks in a reward cycle.
const CYCLE: u64 = 2_100;

pub(super) fn claim(stage: &mut Stage<'_>) -> Deed {
    let (contract, token) = (stage.app(App::Vault), stage.token());
    let (who, at, asset) = (stage.sender.text(), contract.text(), token.identifier());
    let rewards = 1 + stage.draw.geometric(810_000, 31);
    let first = stage.burn_height / CYCLE - rewards;
    let (mut events, mut cycles) = (Vec::new(), Vec::new());
    for cycle in first..first + rewards {
        let amount = stage.draw.amount(1_000, 900_000_000);
        events.push(emit::ft_mint(&asset, &who, amount));
        let print = vec![
            ("event", Clarity::ascii("claim-reward")),
            ("cycle", Clarity::uint(cycle)),
            ("amount", Clarity::uint(amount)),
            ("user", Clarity::principal(&stage.sender)),
        ];
        events.push(emit::print(&at, &Clarity::tuple(print)));
        cycles.push(Clarity::uint(cycle));
    }
    let args = vec![Clarity::list(&cycles), Clarity::principal(&token.contract)];
    Deed { contract, function: "claim-rewards", args, conditions: vec![], events, result: Clarity::uint(rewards) }
}

pub(super) fn stake(stage: &mut Stage<'_>) -> Deed {
    let (contract, token, amount) = (stage.app(App::Vault), stage.token(), stage.money());
    let (who, at, asset) = (stage.sender.text(), contract.text(), token.identifier());
    let cycles = stage.draw.between(1, 32);
    let moved = if stage.draw.chance(350_000) {
        emit::ft_burn(&asset, &who, amount)
    } else {
        emit::ft_transfer(&asset, &who, &at, amount)
    };
    let print = Clarity::tuple(vec![
        ("event", Clarity::ascii("stake")),
        ("amount", Clarity::uint(amount)),
        ("cycles", Clarity::uint(cycles)),
        ("first-cycle", Clarity::uint(stage.burn_height / CYCLE + 1)),
        ("user", Clarity::principal(&stage.sender)),
    ]);
    let events = vec![moved, emit::print(&at, &print)];
    let args = vec![Clarity::principal(&token.contract), Clarity::uint(amount), Clarity::uint(cycles)];
    let conditions = vec![sends_token(&stage.sender, &token, amount)];
    Deed { contract, function: "stake-tokens", args, conditions, events, result: Clarity::bool(true) }
}

pub(super) fn stack(stage: &mut Stage<'_>) -> Deed {
    let contract = stage.world.boot("pox-4");
    let (amount, cycles) = (stage.draw.amount(100_000_000, 90_000_000_000_000), stage.draw.between(1, 12));
    let unlock = unlock_height(stage.burn_height, cycles);
    let (who, at) = (stage.sender.text(), contract.text());
    let address = reward_address(stage);
    let print = Clarity::ok(&Clarity::tuple(vec![
        ("balance", Clarity::uint(stage.money())),
        ("burnchain-unlock-height", Clarity::uint(unlock)),
        ("locked", Clarity::uint(amount)),
        ("name", Clarity::ascii("stack-stx")),
        ("stacker", Clarity::principal(&stage.sender)),
        (
            "data",
            Clarity::tuple(vec![
                ("lock-amount", Clarity::uint(amount)),
                ("lock-period", Clarity::uint(cycles)),
                ("pox-addr", address.clone()),
                ("start-burn-height", Clarity::uint(stage.burn_height)),
                ("unlock-burn-height", Clarity::uint(unlock)),
                ("signer-key", Clarity::buffer(&stage.draw.bytes::<33>())),
            ]),
        ),
    ]));
    let events = vec![emit::stx_lock(&at, &who, amount, unlock), emit::print(&at, &print)];
    let args = vec![Clarity::uint(amount), address, Clarity::uint(stage.burn_height), Clarity::uint(cycles)];
    let result = Clarity::tuple(vec![("lock-amount", Clarity::uint(amount)), ("unlock-burn-height", Clarity::uint(unlock))]);
    Deed { contract, function: "stack-stx", args, conditions: vec![], events, result }
}

/// A pool's operator extends the locks of its members: a lock and a print each.
pub(super) fn stack_pool(stage: &mut Stage<'_>) -> Deed {
    let (contract, pox) = (stage.app(App::Vault), stage.world.boot("pox-4").text());
    let (mut events, mut members) = (Vec::new(), Vec::new());
    let unlock = unlock_height(stage.burn_height, 1);
    for _ in 0..2 + stage.draw.geometric(800_000, 28) {
        let (member, amount) = (stage.other(), stage.draw.amount(40_000_000, 900_000_000_000));
        events.push(emit::stx_lock(&pox, &member.text(), amount, unlock));
        let print = Clarity::ok(&Clarity::tuple(vec![
            ("burnchain-unlock-height", Clarity::uint(unlock)),
            ("locked", Clarity::uint(amount)),
            ("name", Clarity::ascii("delegate-stack-extend")),
            ("delegator", Clarity::principal(&stage.sender)),
            ("stacker", Clarity::principal(&member)),
        ]));
        events.push(emit::print(&pox, &print));
        members.push(Clarity::principal(&member));
    }
    let args = vec![Clarity::list(&members), Clarity::uint(unlock)];
    Deed { contract, function: "extend-many", args, conditions: vec![], events, result: Clarity::bool(true) }
}

pub(super) fn vote(stage: &mut Stage<'_>) -> Deed {
    let (contract, proposal, power) = (stage.app(App::Council), stage.draw.between(1, 60), stage.money());
    let in_favour = stage.draw.chance(720_000);
    let print = Clarity::tuple(vec![
        ("event", Clarity::ascii("vote")),
        ("proposal", Clarity::uint(proposal)),
        ("for", Clarity::bool(in_favour)),
        ("power", Clarity::uint(power)),
        ("voter", Clarity::principal(&stage.sender)),
    ]);
    let events = vec![emit::print(&contract.text(), &print)];
    let args = vec![Clarity::uint(proposal), Clarity::bool(in_favour), Clarity::uint(power)];
    Deed { contract, function: "vote", args, conditions: vec![], events, result: Clarity::bool(true) }
}

fn unlock_height(burn_height: u64, cycles: u64) -> u64 {
    (burn_height / CYCLE + 1 + cycles) * CYCLE
}

fn reward_address(stage: &mut Stage<'_>) -> Clarity {
    let fields = vec![("version", Clarity::buffer(&[0x04])), ("hashbytes", Clarity::buffer(&stage.draw.bytes::<20>()))];
    Clarity::tuple(fields)
}
