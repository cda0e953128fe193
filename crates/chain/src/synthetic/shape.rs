//! The shapes a synthetic chain copies: sizes, shares and skews as constants.
//!
//! No recorded data: these are rounded summaries of public mainnet blocks (2021 to 2026) and of published totals, and the
//! words are invented. Changing a number here changes every synthetic chain.

use super::world::App;

/// Height of the Bitcoin block that genesis names; block 1 is anchored to the next one.
pub(super) const GENESIS_BURN_HEIGHT: u64 = 666_050;
/// Time of genesis: 2024-10-29 00:00:00 UTC. Seconds since 1970.
pub(super) const GENESIS_TIME: u64 = 1_730_160_000;
/// Nakamoto blocks, seconds apart.
pub(super) const NAKAMOTO_SECONDS: u64 = 5;
/// Anchored blocks, seconds apart: one each Bitcoin block.
pub(super) const ANCHORED_SECONDS: u64 = 600;

/// Blocks between the middles of two tenure starts …
pub(super) const TENURE_BLOCKS: u64 = 90;
/// … each of which moves by up to this much, so that a tenure has 60 to 120 blocks.
pub(super) const TENURE_JITTER: u64 = 15;

/// Chance (per million) that a Nakamoto block holds one more transaction: 1 + mean 2.16, and 5 at tenure starts, make 3.2.
pub(super) const NAKAMOTO_MORE: u64 = 683_500;
/// No block holds more.
pub(super) const NAKAMOTO_CAP: u64 = 200;
/// Transactions of an anchored block besides its coinbase, at equally spaced quantiles: log-normal, median 115, cap 210.
pub(super) const ANCHORED_TRANSACTIONS: &[u64] = &[12, 42, 58, 74, 92, 114, 138, 166, 204, 209, 209];

/// Contracts that genesis deploys: name, bytes of source.
pub(super) const BOOT_CONTRACTS: &[(&str, u64)] = &[
    ("genesis", 420),
    ("pox", 13_000),
    ("lockup", 1_800),
    ("bns", 39_000),
    ("costs", 20_000),
    ("cost-voting", 11_000),
    ("pox-4", 52_000),
];
/// Accounts that genesis gives STX to.
pub(super) const GENESIS_BALANCES: u64 = 200;

/// Accounts at genesis.
pub(super) const FIRST_USERS: u64 = 400;
/// One new account after this many transactions.
pub(super) const TRANSACTIONS_PER_USER: u64 = 20;
/// Contracts at genesis.
pub(super) const FIRST_CONTRACTS: u64 = 40;
/// New contracts for each step of the square root of transactions.
pub(super) const CONTRACTS_PER_ROOT: u64 = 4;
/// Contracts deployed by one account.
pub(super) const CONTRACTS_PER_MAKER: u64 = 4;
/// Zipf shift of users: the first makes about 4 % of the transactions.
pub(super) const USER_SHIFT: u64 = 4;
/// Zipf shift of contracts and assets: the first of a kind has 10 to 20 % of its calls.
pub(super) const CONTRACT_SHIFT: u64 = 2;

/// Percent of all contracts that are of a kind.
pub(super) fn app_share(app: App) -> u64 {
    match app {
        App::Pool | App::Token => 22,
        App::Collection => 20,
        App::Vault => 8,
        App::Market | App::Oracle | App::Sender | App::Lending => 5,
        App::Router | App::Bridge | App::Registry | App::Council => 2,
    }
}

/// What users send. Per thousand; coinbases and tenure changes come with their blocks.
pub(super) const KINDS: &[(u32, Kind)] = &[(722, Kind::Call), (255, Kind::Transfer), (23, Kind::Deploy)];
/// The same in quiet blocks, which are transfers for the most part.
pub(super) const QUIET_KINDS: &[(u32, Kind)] = &[(870, Kind::Transfer), (130, Kind::Call)];
/// The same in anchored blocks, which knew poison microblocks.
pub(super) const ANCHORED_KINDS: &[(u32, Kind)] =
    &[(722, Kind::Call), (258, Kind::Transfer), (19, Kind::Deploy), (1, Kind::Poison)];

/// What a user sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Transfer,
    Deploy,
    Poison,
}

/// Chance (per million) that a call fails by its own answer.
pub(super) const ABORT_BY_RESPONSE: u64 = 21_000;
/// Chance (per million) that a post-condition undoes a call.
pub(super) const ABORT_BY_POST_CONDITION: u64 = 14_000;
/// Chance (per million) that a call is one of the giants of several hundred events: 1 in 1,000 transactions.
pub(super) const GIANT: u64 = 1_400;
/// Chance (per million) that somebody else pays.
pub(super) const SPONSORED: u64 = 2_500;
/// Chance (per million) that a block with a new Bitcoin block carries an operation made there.
pub(super) const BURNCHAIN_OPERATION: u64 = 150_000;

/// Post-conditions of a call beyond those about what it sends; most calls have none.
pub(super) const EXTRA_CONDITIONS: &[(u32, u64)] = &[(70, 0), (20, 1), (7, 2), (3, 4)];
/// Bytes of contract source at equally spaced quantiles.
pub(super) const SOURCE_BYTES: &[u64] = &[260, 1_100, 2_600, 4_300, 4_900, 5_100, 6_200, 7_600, 10_500, 19_000];

/// Fork windows, in blocks: one fork in each.
pub(super) const FORK_WINDOW: u64 = 5_000;
/// Depth of a fork: percent, and the depths it is drawn from.
pub(super) const FORK_DEPTHS: &[(u32, (u64, u64))] = &[(90, (1, 1)), (9, (2, 5)), (1, (6, 20))];
/// Share of a losing block's transactions that the winner holds too, per million.
pub(super) const FORK_REUSE: u64 = 700_000;
/// Part of those that the winner holds one block later, per million.
pub(super) const FORK_LATER: u64 = 200_000;
/// Blocks delivered twice, per million.
pub(super) const REDELIVERED: u64 = 10_000;
/// Pairs of blocks that arrive the wrong way round, per million.
pub(super) const SWAPPED: u64 = 1_000;

/// First halves of names.
pub(super) const FIRST_WORDS: &[&str] = &[
    "amber", "ashen", "bold", "brisk", "calm", "cedar", "coral", "crisp", "dusky", "eager", "fabled", "fern", "frosty", "gilded",
    "glass", "grand", "hazel", "hidden", "hollow", "indigo", "ivory", "jade", "keen", "lofty", "lunar", "maple", "mellow",
    "misty", "mossy", "noble", "opal", "pale", "quiet", "rapid", "rustic", "sable", "silent", "slate", "solar", "stout", "sunny",
    "tidal", "umber", "velvet", "vivid", "wild", "woven", "young",
];
/// Second halves of names.
pub(super) const SECOND_WORDS: &[&str] = &[
    "acorn", "anchor", "anvil", "badger", "beacon", "bramble", "canoe", "comet", "condor", "delta", "ember", "falcon", "fjord",
    "garnet", "glacier", "grove", "harbor", "heron", "iris", "juniper", "kestrel", "kiln", "lantern", "ledger", "lichen", "lynx",
    "marten", "meadow", "nettle", "nimbus", "oriole", "otter", "pebble", "pine", "plover", "quarry", "quill", "raven", "reef",
    "ridge", "sparrow", "spruce", "thicket", "thistle", "timber", "vole", "willow", "wren",
];
