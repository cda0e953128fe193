//! Stacks transactions in their wire encoding (SIP-005 and its later payloads), decoded from untrusted bytes.
//!
//! Not validation: signatures and rules are the node's business. Invariant: a transaction decodes only if every byte of
//! it is accounted for, so a layout we do not know is an error and never a wrong row.

use sha2::{Digest, Sha512_256};

use crate::address;
use crate::clarity::{self, ClarityError, Principal, text};
use crate::cursor::{Cursor, Truncated};

/// Why bytes are no transaction.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// A value inside does not decode.
    #[error(transparent)]
    Clarity(#[from] ClarityError),
    /// A discriminator with no meaning to us.
    #[error("unknown {what} {id} at offset {offset}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// What it says.
        id: u8,
        /// Where.
        offset: usize,
    },
    /// More bytes than the transaction has.
    #[error("{0} bytes follow the transaction")]
    Trailing(usize),
}

/// A decoded transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTransaction {
    /// 0x00 mainnet, 0x80 any other network.
    pub version: u8,
    /// 1 mainnet, 0x80000000 testnet; boot transactions of genesis have 0.
    pub chain_id: u32,
    /// Who sends it.
    pub origin: SpendingCondition,
    /// Who pays for it, where that is another.
    pub sponsor: Option<SpendingCondition>,
    /// 1 anchored, 2 microblock, 3 any.
    pub anchor_mode: u8,
    /// 1 allow, 2 deny, 3 originator.
    pub post_condition_mode: u8,
    /// How many post-conditions it has.
    pub post_conditions: u32,
    /// What it does.
    pub payload: Payload,
}

/// Account, nonce and fee of one who authorises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendingCondition {
    /// 0 P2PKH, 1 P2SH, 2 P2WPKH, 3 P2WSH, 5 and 7 the non-sequential forms of 1 and 3.
    pub hash_mode: u8,
    /// Hash of the key or script.
    pub signer: [u8; 20],
    /// The account's count of earlier transactions.
    pub nonce: u64,
    /// In micro-STX.
    pub fee: u64,
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Payload 0.
    TokenTransfer {
        /// Who receives.
        recipient: Principal,
        /// In micro-STX.
        amount: u64,
    },
    /// Payloads 1 and 6.
    SmartContract {
        /// Name under the sender's account.
        name: String,
        /// Given by payload 6 only.
        clarity_version: Option<u8>,
        /// Source text.
        source: String,
    },
    /// Payload 2.
    ContractCall {
        /// The contract called.
        contract: Principal,
        /// Name of its function.
        function: String,
        /// Each argument's Clarity bytes.
        arguments: Vec<Vec<u8>>,
    },
    /// Payload 3.
    PoisonMicroblock,
    /// Payloads 4, 5 and 8.
    Coinbase {
        /// Who is paid instead of the sender.
        recipient: Option<Principal>,
    },
    /// Payload 7.
    TenureChange {
        /// 0 a new Bitcoin block was found, 1 extended; newer nodes have more.
        cause: u8,
    },
}

impl Payload {
    /// The indexer's name of the type.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TokenTransfer { .. } => "token_transfer",
            Self::SmartContract { .. } => "smart_contract",
            Self::ContractCall { .. } => "contract_call",
            Self::PoisonMicroblock => "poison_microblock",
            Self::Coinbase { .. } => "coinbase",
            Self::TenureChange { .. } => "tenure_change",
        }
    }
}

impl RawTransaction {
    /// Decodes a whole transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub fn decode(raw: &[u8]) -> Result<Self, TransactionError> {
        let mut cursor = Cursor::new(raw);
        let version = cursor.u8()?;
        let chain_id = cursor.u32()?;
        let (origin, sponsor) = authorisation(&mut cursor)?;
        let anchor_mode = cursor.u8()?;
        let post_condition_mode = cursor.u8()?;
        let post_conditions = cursor.u32()?;
        for _ in 0..post_conditions {
            skip_post_condition(&mut cursor)?;
        }
        let payload = payload(&mut cursor)?;
        match cursor.left() {
            0 => Ok(Self { version, chain_id, origin, sponsor, anchor_mode, post_condition_mode, post_conditions, payload }),
            left => Err(TransactionError::Trailing(left)),
        }
    }

    /// The origin's c32 address.
    #[must_use]
    pub fn sender(&self) -> String {
        let version = address::version_of(self.version & 0x80 == 0, self.origin.hash_mode);
        address::encode(version, &self.origin.signer).unwrap_or_default()
    }
}

/// The transaction id of raw bytes: `0x` + hex of their SHA-512/256.
#[must_use]
pub fn txid(raw: &[u8]) -> String {
    format!("0x{}", hex::encode(Sha512_256::digest(raw)))
}

fn unknown<T>(what: &'static str, id: u8, offset: usize) -> Result<T, TransactionError> {
    Err(TransactionError::Unknown { what, id, offset })
}

fn authorisation(cursor: &mut Cursor<'_>) -> Result<(SpendingCondition, Option<SpendingCondition>), TransactionError> {
    let offset = cursor.position();
    match cursor.u8()? {
        0x04 => Ok((spending_condition(cursor)?, None)),
        0x05 => Ok((spending_condition(cursor)?, Some(spending_condition(cursor)?))),
        id => unknown("authorisation type", id, offset),
    }
}

fn spending_condition(cursor: &mut Cursor<'_>) -> Result<SpendingCondition, TransactionError> {
    let offset = cursor.position();
    let condition =
        SpendingCondition { hash_mode: cursor.u8()?, signer: cursor.array()?, nonce: cursor.u64()?, fee: cursor.u64()? };
    match condition.hash_mode {
        0 | 2 => drop(cursor.take(1 + 65)?),
        1 | 3 | 5 | 7 => {
            for _ in 0..cursor.u32()? {
                skip_signature_field(cursor)?;
            }
            cursor.u16()?;
        }
        id => return unknown("hash mode", id, offset),
    }
    Ok(condition)
}

fn skip_signature_field(cursor: &mut Cursor<'_>) -> Result<(), TransactionError> {
    let offset = cursor.position();
    match cursor.u8()? {
        0 | 1 => drop(cursor.take(33)?),
        2 | 3 => drop(cursor.take(65)?),
        id => return unknown("signature field", id, offset),
    }
    Ok(())
}

fn skip_post_condition(cursor: &mut Cursor<'_>) -> Result<(), TransactionError> {
    let offset = cursor.position();
    let kind = cursor.u8()?;
    skip_post_condition_principal(cursor)?;
    match kind {
        // STX, and the staking condition of epoch 4: comparison, amount.
        0 | 3 => drop(cursor.take(1 + 8)?),
        1 => {
            skip_asset(cursor)?;
            cursor.take(1 + 8)?;
        }
        2 => {
            skip_asset(cursor)?;
            clarity::skip(cursor)?;
            cursor.u8()?;
        }
        4 => drop(cursor.u8()?),
        id => return unknown("post-condition type", id, offset),
    }
    Ok(())
}

fn skip_post_condition_principal(cursor: &mut Cursor<'_>) -> Result<(), TransactionError> {
    let offset = cursor.position();
    match cursor.u8()? {
        1 => {}
        2 => drop(cursor.take(21)?),
        3 => {
            cursor.take(21)?;
            cursor.short()?;
        }
        id => return unknown("post-condition principal", id, offset),
    }
    Ok(())
}

fn skip_asset(cursor: &mut Cursor<'_>) -> Result<(), TransactionError> {
    cursor.take(21)?;
    cursor.short()?;
    cursor.short()?;
    Ok(())
}

fn payload(cursor: &mut Cursor<'_>) -> Result<Payload, TransactionError> {
    let offset = cursor.position();
    Ok(match cursor.u8()? {
        0 => token_transfer(cursor)?,
        1 => smart_contract(cursor, None)?,
        2 => contract_call(cursor)?,
        3 => {
            cursor.take(2 * 132)?;
            Payload::PoisonMicroblock
        }
        4 => {
            cursor.take(32)?;
            Payload::Coinbase { recipient: None }
        }
        5 => {
            cursor.take(32)?;
            Payload::Coinbase { recipient: Some(principal(cursor)?) }
        }
        6 => {
            let version = cursor.u8()?;
            smart_contract(cursor, Some(version))?
        }
        7 => {
            cursor.take(3 * 20 + 32 + 4)?;
            let cause = cursor.u8()?;
            cursor.take(20)?;
            Payload::TenureChange { cause }
        }
        8 => nakamoto_coinbase(cursor)?,
        id => return unknown("payload id", id, offset),
    })
}

fn token_transfer(cursor: &mut Cursor<'_>) -> Result<Payload, TransactionError> {
    let recipient = principal(cursor)?;
    let amount = cursor.u64()?;
    cursor.take(34)?;
    Ok(Payload::TokenTransfer { recipient, amount })
}

fn smart_contract(cursor: &mut Cursor<'_>, clarity_version: Option<u8>) -> Result<Payload, TransactionError> {
    Ok(Payload::SmartContract { name: text(cursor.short()?), clarity_version, source: text(cursor.long()?) })
}

fn contract_call(cursor: &mut Cursor<'_>) -> Result<Payload, TransactionError> {
    let contract = clarity::read_principal(cursor, true)?;
    let function = text(cursor.short()?);
    let arguments = clarity::arguments(cursor)?.into_iter().map(<[u8]>::to_vec).collect();
    Ok(Payload::ContractCall { contract, function, arguments })
}

fn nakamoto_coinbase(cursor: &mut Cursor<'_>) -> Result<Payload, TransactionError> {
    cursor.take(32)?;
    let offset = cursor.position();
    let recipient = match cursor.u8()? {
        0x09 => None,
        0x0a => Some(principal(cursor)?),
        id => return unknown("coinbase recipient", id, offset),
    };
    cursor.take(80)?;
    Ok(Payload::Coinbase { recipient })
}

fn principal(cursor: &mut Cursor<'_>) -> Result<Principal, TransactionError> {
    let offset = cursor.position();
    match cursor.u8()? {
        0x05 => Ok(clarity::read_principal(cursor, false)?),
        0x06 => Ok(clarity::read_principal(cursor, true)?),
        id => unknown("principal type", id, offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mainnet token transfer of May 2023.
    const TRANSFER: &str = "000000000104004341af702ea15e5c2f7b8ae95106d5360479e374000000000000008b000000000003827000003e9199f89b0b3eb41c08cf09a596addee2d10bde2d7caaad6349dfae0eff9d705b69cc9726ec497865f60fc8e2b6fd05f2fc2007caa282f19b3ab8e491cf7dcb0302000000000005163a8d00ce43e5718d9d47b784b1866a5b9d3cd270000000003c232b7c31393038323036313439000000000000000000000000000000000000000000000000";

    #[test]
    fn a_mainnet_transfer_decodes_and_hashes_to_its_id() {
        let raw = hex::decode(TRANSFER).expect("hex");
        let tx = RawTransaction::decode(&raw).expect("decodes");
        assert_eq!((tx.version, tx.chain_id, tx.origin.nonce, tx.origin.fee), (0, 1, 0x8b, 0x38270));
        assert!(matches!(tx.payload, Payload::TokenTransfer { amount: 0x3c23_2b7c, .. }));
        assert!(tx.sender().starts_with("SP"));
        assert_eq!(txid(&raw), "0x34d9e5bdba82c99b1c6749f2dfad48650acc45fafc2466c87daccabdfdbab3ee");
    }

    #[test]
    fn a_sponsored_transaction_has_both_conditions() {
        let raw = hex::decode(TRANSFER).expect("hex");
        let mut sponsored = raw[..5].to_vec();
        sponsored.push(5);
        sponsored.extend_from_slice(&raw[6..109]);
        sponsored.extend_from_slice(&raw[6..]);
        let tx = RawTransaction::decode(&sponsored).expect("decodes");
        assert_eq!(tx.sponsor, Some(tx.origin));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let raw = hex::decode(TRANSFER).expect("hex");
        for cut in 0..raw.len() {
            assert!(RawTransaction::decode(&raw[..cut]).is_err());
        }
        let mut longer = raw.clone();
        longer.push(0);
        assert_eq!(RawTransaction::decode(&longer), Err(TransactionError::Trailing(1)));
        for at in 0..raw.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = raw.clone();
                bad[at] ^= flip;
                drop(RawTransaction::decode(&bad));
            }
        }
    }
}
