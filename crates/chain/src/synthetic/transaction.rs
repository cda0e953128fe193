//! One transaction with its events: drawn, encoded and described in the words an indexer would find.
//!
//! Not a row and not JSON (see `copy` and `payload`). Invariant: every field says what decoding `raw_tx` says.

use super::account::{Account, Principal};
use super::clarity::{Clarity, prefixed_hex};
use super::deeds;
use super::draw::Draw;
use super::emit::{self, Emitted};
use super::encode::{self, ChainId, Envelope, Payload};
use super::shape::{self, Kind};
use super::source;
use super::stage::Stage;

/// A transaction without its place in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tx {
    pub(super) tx_id: String,
    /// As in `model::Transaction::kind`.
    pub(super) kind: &'static str,
    pub(super) sender: String,
    pub(super) status: &'static str,
    pub(super) contract_id: Option<String>,
    pub(super) function_name: Option<&'static str>,
    /// Each argument as `0x` hex; empty but for calls.
    pub(super) function_args: Vec<String>,
    pub(super) raw_tx: String,
    pub(super) raw_result: String,
    /// In the order in which they happened.
    pub(super) events: Vec<Emitted>,
    /// JSON of the payload's `burnchain_op`, for operations made on Bitcoin.
    pub(super) burnchain_op: Option<String>,
    /// JSON of the payload's `contract_interface`, for deploys.
    pub(super) interface: Option<String>,
}

impl Tx {
    /// True for what a user sent, which another block may hold as well; false for what belongs to its block.
    pub(super) fn is_portable(&self) -> bool {
        self.raw_tx.len() > 4 && !matches!(self.kind, "coinbase" | "tenure_change" | "poison_microblock")
    }

    /// A successful transaction that emits nothing.
    fn plain(envelope: &Envelope, kind: &'static str, payload: &Payload, draw: &mut Draw) -> Self {
        let raw = encode::transaction(envelope, payload, draw);
        Self {
            tx_id: encode::tx_id(&raw),
            kind,
            sender: envelope.origin.address.clone(),
            status: "success",
            contract_id: None,
            function_name: None,
            function_args: vec![],
            raw_tx: prefixed_hex(&raw),
            raw_result: Clarity::ok(&Clarity::bool(true)).hex(),
            events: vec![],
            burnchain_op: None,
            interface: None,
        }
    }
}

/// What a user sends.
pub(super) fn user(stage: &mut Stage<'_>, kind: Kind, nonce: u64) -> Tx {
    let mut envelope = Envelope {
        chain: ChainId::of(stage.world.space),
        origin: stage.sender.account.clone(),
        sponsor: None,
        nonce,
        fee: stage.draw.amount(180, 900_000),
        conditions: vec![],
    };
    match kind {
        Kind::Call => call(stage, envelope),
        Kind::Transfer => transfer(stage, &envelope),
        Kind::Deploy => {
            let length = stage.draw.quantile(shape::SOURCE_BYTES);
            let name = format!("{}-{}-{nonce:x}", stage.draw.pick(shape::FIRST_WORDS), stage.draw.pick(shape::SECOND_WORDS));
            deploy(&envelope, name, length, stage.draw)
        }
        Kind::Poison => {
            envelope.fee = 0;
            Tx::plain(&envelope, "poison_microblock", &Payload::Poison, stage.draw)
        }
    }
}

/// A deploy of a contract whose source has about `length` bytes.
pub(super) fn deploy(envelope: &Envelope, name: String, length: u64, draw: &mut Draw) -> Tx {
    let contract_id = format!("{}.{name}", envelope.origin.address);
    let source = source::text(draw, length);
    let mut tx = Tx::plain(envelope, "smart_contract", &Payload::Deploy { clarity_version: 3, name, source }, draw);
    tx.interface = Some(source::interface(draw));
    tx.contract_id = Some(contract_id);
    tx
}

/// The miner's reward.
pub(super) fn coinbase(envelope: &Envelope, nakamoto: bool, draw: &mut Draw) -> Tx {
    Tx::plain(envelope, "coinbase", &Payload::Coinbase { nakamoto }, draw)
}

/// The start of a tenure after one that ended with the block `previous_tenure_end`.
pub(super) fn tenure_change(envelope: &Envelope, previous_tenure_end: [u8; 32], previous_blocks: u32, draw: &mut Draw) -> Tx {
    let payload = Payload::TenureChange { previous_tenure_end, previous_blocks, key_hash: envelope.origin.hash };
    Tx::plain(envelope, "tenure_change", &payload, draw)
}

/// STX sent on Bitcoin's side: no raw transaction, so nothing tells an indexer its type or sender.
pub(super) fn burnchain_operation(stage: &mut Stage<'_>, burn_hash: &str) -> Tx {
    let (tx_id, amount, to) = (prefixed_hex(&stage.draw.bytes::<32>()), stage.money(), stage.other());
    let from = stage.sender.text();
    let operation = format!(
        r#"{{"transfer_stx":{{"burn_block_height":{},"burn_header_hash":"{}","burn_txid":"{}","memo":"0x","recipient":{},"sender":{},"transfered_ustx":{amount},"vtxindex":{}}}}}"#,
        stage.burn_height,
        &burn_hash[2..],
        &tx_id[2..],
        operation_address(&to.account),
        operation_address(&stage.sender.account),
        stage.draw.between(1, 900),
    );
    Tx {
        tx_id,
        kind: "unknown",
        sender: "unknown".to_owned(),
        status: "success",
        contract_id: None,
        function_name: None,
        function_args: vec![],
        raw_tx: "0x00".to_owned(),
        raw_result: "0x0703".to_owned(),
        events: vec![emit::stx_transfer(&from, &to.text(), amount, &[])],
        burnchain_op: Some(operation),
        interface: None,
    }
}

fn operation_address(account: &Account) -> String {
    let hash = prefixed_hex(&account.hash);
    format!(r#"{{"address":"{}","address_hash_bytes":"{hash}","address_version":{}}}"#, account.address, account.version)
}

fn transfer(stage: &mut Stage<'_>, envelope: &Envelope) -> Tx {
    let recipient: Principal = stage.other();
    let (amount, mut memo) = (stage.money(), [0; 34]);
    if stage.draw.chance(400_000) {
        let digits = stage.draw.between(100_000, 9_999_999_999).to_string();
        memo[..digits.len()].copy_from_slice(digits.as_bytes());
    }
    let event = emit::stx_transfer(&envelope.origin.address, &recipient.text(), amount, &memo);
    let mut tx = Tx::plain(envelope, "token_transfer", &Payload::Transfer { recipient, amount, memo }, stage.draw);
    tx.events.push(event);
    tx
}

fn call(stage: &mut Stage<'_>, mut envelope: Envelope) -> Tx {
    if stage.draw.chance(shape::SPONSORED) {
        envelope.sponsor = Some(stage.user());
    }
    let deed = deeds::draw(stage);
    envelope.conditions = deed.conditions;
    let (contract_id, function) = (deed.contract.text(), deed.function);
    let function_args = deed.args.iter().map(Clarity::hex).collect();
    let payload = Payload::Call { contract: deed.contract, function: function.to_owned(), args: deed.args };
    let mut tx = Tx::plain(&envelope, "contract_call", &payload, stage.draw);
    (tx.contract_id, tx.function_name, tx.function_args) = (Some(contract_id), Some(function), function_args);
    tx.raw_result = Clarity::ok(&deed.result).hex();
    // Current nodes emit nothing for what was undone.
    if stage.draw.chance(shape::ABORT_BY_RESPONSE) {
        tx.status = "abort_by_response";
        tx.raw_result = Clarity::err(&Clarity::uint(stage.draw.between(1, 5_000))).hex();
    } else if stage.draw.chance(shape::ABORT_BY_POST_CONDITION) {
        tx.status = "abort_by_post_condition";
    } else {
        tx.events = deed.events;
    }
    tx
}
