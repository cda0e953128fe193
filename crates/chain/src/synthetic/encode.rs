//! Transactions as raw bytes (SIP-005), and their ids.
//!
//! Not a signer: signatures, public keys and proofs are random bytes of the right length.
//! Invariant: what the decoder of this crate reads back is what was put in, and txid = SHA-512/256(raw).

use sha2::{Digest, Sha512_256};

use super::account::{Account, AddressSpace, MULTISIG_MODE, Principal};
use super::clarity::Clarity;
use super::draw::Draw;

/// Everything of a transaction but what it does.
pub(super) struct Envelope {
    /// Address space and chain id; `Boot` transactions of genesis carry chain id 0.
    pub(super) chain: ChainId,
    /// Who sends it.
    pub(super) origin: Account,
    /// Who pays in the sender's place.
    pub(super) sponsor: Option<Account>,
    /// The sender's counter.
    pub(super) nonce: u64,
    /// In micro-STX.
    pub(super) fee: u64,
    /// What must hold afterwards.
    pub(super) conditions: Vec<PostCondition>,
}

/// The two numbers that keep networks apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChainId {
    /// 0x00 mainnet, 0x80 elsewhere.
    pub(super) version: u8,
    /// 1 on mainnet, 0x80000000 on testnets, 0 in genesis.
    pub(super) id: u32,
}

impl ChainId {
    /// The numbers of ordinary transactions.
    pub(super) fn of(space: AddressSpace) -> Self {
        match space {
            AddressSpace::Mainnet => Self { version: 0x00, id: 1 },
            AddressSpace::Testnet => Self { version: 0x80, id: 0x8000_0000 },
        }
    }

    /// The numbers of genesis transactions.
    pub(super) fn boot(space: AddressSpace) -> Self {
        Self { id: 0, ..Self::of(space) }
    }
}

/// What a transaction does.
pub(super) enum Payload {
    /// Id 0.
    Transfer { recipient: Principal, amount: u64, memo: [u8; 34] },
    /// Id 6.
    Deploy { clarity_version: u8, name: String, source: String },
    /// Id 2.
    Call { contract: Principal, function: String, args: Vec<Clarity> },
    /// Id 3: two microblock headers, 132 bytes each.
    Poison,
    /// Id 4, or 8 (with a proof) since Nakamoto.
    Coinbase { nakamoto: bool },
    /// Id 7. `key_hash` is the miner's.
    TenureChange { previous_tenure_end: [u8; 32], previous_blocks: u32, key_hash: [u8; 20] },
}

/// An asset that one of the conditions is about.
pub(super) struct AssetName {
    /// Where it is defined.
    pub(super) contract: Principal,
    /// Its name in there.
    pub(super) asset: String,
}

/// One post-condition, about what `principal` sends.
pub(super) enum PostCondition {
    /// Type 0, code 1 (equal) … 5 (at most).
    Stx { principal: Principal, amount: u64 },
    /// Type 1.
    Fungible { principal: Principal, asset: AssetName, amount: u64 },
    /// Type 2, code 0x10: it is sent.
    NonFungible { principal: Principal, asset: AssetName, id: Clarity },
}

/// The raw bytes; `draw` supplies signatures and proofs.
pub(super) fn transaction(envelope: &Envelope, payload: &Payload, draw: &mut Draw) -> Vec<u8> {
    let mut raw = Vec::with_capacity(512);
    raw.push(envelope.chain.version);
    raw.extend_from_slice(&envelope.chain.id.to_be_bytes());
    raw.push(if envelope.sponsor.is_some() { 0x05 } else { 0x04 });
    let own_fee = if envelope.sponsor.is_some() { 0 } else { envelope.fee };
    spending_condition(&mut raw, &envelope.origin, (envelope.nonce, own_fee), draw);
    if let Some(sponsor) = &envelope.sponsor {
        spending_condition(&mut raw, sponsor, (envelope.nonce, envelope.fee), draw);
    }
    raw.push(0x03); // anchor mode: any
    raw.push(if envelope.conditions.is_empty() { 0x01 } else { 0x02 }); // allow, or deny what is not listed
    raw.extend_from_slice(&(envelope.conditions.len() as u32).to_be_bytes());
    for condition in &envelope.conditions {
        post_condition(&mut raw, condition);
    }
    write_payload(&mut raw, payload, draw);
    raw
}

/// `0x` + SHA-512/256 of the raw bytes.
pub(super) fn tx_id(raw: &[u8]) -> String {
    super::clarity::prefixed_hex(&Sha512_256::digest(raw))
}

fn spending_condition(raw: &mut Vec<u8>, signer: &Account, (nonce, fee): (u64, u64), draw: &mut Draw) {
    raw.push(if signer.is_multisig() { MULTISIG_MODE } else { 0x00 });
    raw.extend_from_slice(&signer.hash);
    raw.extend_from_slice(&nonce.to_be_bytes());
    raw.extend_from_slice(&fee.to_be_bytes());
    if !signer.is_multisig() {
        raw.push(0x00); // compressed key
        raw.extend_from_slice(&draw.bytes::<65>());
        return;
    }
    raw.extend_from_slice(&3u32.to_be_bytes());
    for _ in 0..2 {
        raw.push(0x02); // signature by a compressed key
        raw.extend_from_slice(&draw.bytes::<65>());
    }
    raw.push(0x00); // compressed key that did not sign
    raw.extend_from_slice(&draw.bytes::<33>());
    raw.extend_from_slice(&2u16.to_be_bytes());
}

fn post_condition(raw: &mut Vec<u8>, condition: &PostCondition) {
    match condition {
        PostCondition::Stx { principal, amount } => {
            raw.push(0x00);
            condition_principal(raw, principal);
            raw.push(0x05); // at most
            raw.extend_from_slice(&amount.to_be_bytes());
        }
        PostCondition::Fungible { principal, asset, amount } => {
            raw.push(0x01);
            condition_principal(raw, principal);
            asset_info(raw, asset);
            raw.push(0x03); // at least
            raw.extend_from_slice(&amount.to_be_bytes());
        }
        PostCondition::NonFungible { principal, asset, id } => {
            raw.push(0x02);
            condition_principal(raw, principal);
            asset_info(raw, asset);
            raw.extend_from_slice(id.bytes());
            raw.push(0x10); // is sent
        }
    }
}

fn condition_principal(raw: &mut Vec<u8>, principal: &Principal) {
    raw.push(if principal.contract.is_empty() { 0x02 } else { 0x03 });
    raw.push(principal.account.version);
    raw.extend_from_slice(&principal.account.hash);
    if !principal.contract.is_empty() {
        short_text(raw, &principal.contract);
    }
}

fn asset_info(raw: &mut Vec<u8>, asset: &AssetName) {
    raw.push(asset.contract.account.version);
    raw.extend_from_slice(&asset.contract.account.hash);
    short_text(raw, &asset.contract.contract);
    short_text(raw, &asset.asset);
}

fn write_payload(raw: &mut Vec<u8>, payload: &Payload, draw: &mut Draw) {
    match payload {
        Payload::Transfer { recipient, amount, memo } => {
            raw.push(0x00);
            recipient.write_clarity(raw);
            raw.extend_from_slice(&amount.to_be_bytes());
            raw.extend_from_slice(memo);
        }
        Payload::Deploy { clarity_version, name, source } => {
            raw.extend_from_slice(&[0x06, *clarity_version]);
            short_text(raw, name);
            raw.extend_from_slice(&(source.len() as u32).to_be_bytes());
            raw.extend_from_slice(source.as_bytes());
        }
        Payload::Call { contract, function, args } => {
            raw.push(0x02);
            raw.push(contract.account.version);
            raw.extend_from_slice(&contract.account.hash);
            short_text(raw, &contract.contract);
            short_text(raw, function);
            raw.extend_from_slice(&(args.len() as u32).to_be_bytes());
            args.iter().for_each(|arg| raw.extend_from_slice(arg.bytes()));
        }
        Payload::Poison => {
            raw.push(0x03);
            raw.extend_from_slice(&draw.bytes::<264>());
        }
        Payload::Coinbase { nakamoto: false } => {
            raw.push(0x04);
            raw.extend_from_slice(&[0; 32]);
        }
        Payload::Coinbase { nakamoto: true } => {
            raw.push(0x08);
            raw.extend_from_slice(&[0; 32]);
            raw.push(0x09); // no other recipient
            raw.extend_from_slice(&draw.bytes::<80>());
        }
        Payload::TenureChange { previous_tenure_end, previous_blocks, key_hash } => {
            raw.push(0x07);
            raw.extend_from_slice(&draw.bytes::<60>()); // this, the previous and the burn view's consensus hash
            raw.extend_from_slice(previous_tenure_end);
            raw.extend_from_slice(&previous_blocks.to_be_bytes());
            raw.push(0x00); // cause: a block was found
            raw.extend_from_slice(key_hash);
        }
    }
}

/// Length in one byte, then the text: SIP-005 names are at most 128 bytes long.
fn short_text(raw: &mut Vec<u8>, text: &str) {
    raw.push(text.len() as u8);
    raw.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{Account, AddressSpace, ChainId, Draw, Envelope, Payload, Principal, transaction, tx_id};

    fn envelope(index: u64) -> Envelope {
        Envelope {
            chain: ChainId::of(AddressSpace::Mainnet),
            origin: Account::derive(&[1; 32], AddressSpace::Mainnet, "user", index),
            sponsor: None,
            nonce: 1,
            fee: 2,
            conditions: vec![],
        }
    }

    fn length(payload: &Payload) -> usize {
        transaction(&envelope(0), payload, &mut Draw::new([0; 32], 0)).len()
    }

    #[test]
    fn fixed_kinds_have_the_lengths_measured_on_mainnet() {
        let recipient = Principal::account(Account::boot(AddressSpace::Mainnet));
        assert_eq!(length(&Payload::Transfer { recipient, amount: 5, memo: [0; 34] }), 180);
        assert_eq!(length(&Payload::Coinbase { nakamoto: false }), 148);
        assert_eq!(length(&Payload::Coinbase { nakamoto: true }), 229);
        assert_eq!(length(&Payload::Poison), 380);
        let tenure = Payload::TenureChange { previous_tenure_end: [0; 32], previous_blocks: 90, key_hash: [0; 20] };
        assert_eq!(length(&tenure), 233);
    }

    #[test]
    fn a_sponsor_adds_a_second_condition() {
        let mut sponsored = envelope(0);
        sponsored.sponsor = Some(Account::derive(&[1; 32], AddressSpace::Mainnet, "user", 1));
        let raw = transaction(&sponsored, &Payload::Poison, &mut Draw::new([0; 32], 0));
        assert_eq!((raw[5], raw.len()), (0x05, 380 + 103));
    }

    #[test]
    fn the_id_is_sha_512_256() {
        assert_eq!(tx_id(b""), "0xc672b8d1ef56ed28ab87c3622c5114069bdd3ad7b8f9737498d0c01ecef0967a");
    }
}
