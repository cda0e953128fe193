//! Who acts on the chain: accounts and contracts, each derived from its number alone.
//!
//! No wallet: there are no keys, and signatures elsewhere are random bytes, because nothing that follows an observer checks them.
//! Invariant: account `i` of a seed is the same in every chain of that seed and network, whatever its length.

use sha2::{Digest, Sha256};

use crate::address;

/// Hash mode of multi-signature accounts: P2SH, signatures in any order.
pub(super) const MULTISIG_MODE: u8 = 0x05;
/// One account in this many is a multi-signature account.
const MULTISIG_EVERY: u64 = 97;

/// The two address spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressSpace {
    Mainnet,
    Testnet,
}

impl AddressSpace {
    /// Only `mainnet` has the mainnet versions; every other network (testnet, devnet, regtest …) shares the testnet's.
    pub(super) fn of(network: &str) -> Self {
        if network == "mainnet" { Self::Mainnet } else { Self::Testnet }
    }

    fn version(self, multisig: bool) -> u8 {
        address::version_of(self == Self::Mainnet, if multisig { MULTISIG_MODE } else { 0 })
    }
}

/// An address in its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// c32 version: 22, 20, 26 or 21.
    pub(super) version: u8,
    /// RIPEMD-160 of the SHA-256 of what may sign; here any 20 bytes.
    pub(super) hash: [u8; 20],
    /// `S…`, 39 to 41 characters.
    pub(super) address: String,
}

impl Account {
    fn new(version: u8, hash: [u8; 20]) -> Self {
        let address = address::encode(version, &hash).expect("every version in use is below 32");
        Self { version, hash, address }
    }

    /// The account that owns the boot contracts: an all-zero hash.
    pub(super) fn boot(space: AddressSpace) -> Self {
        Self::new(space.version(false), [0; 20])
    }

    /// Account number `index` of the family named `family`.
    pub(super) fn derive(key: &[u8; 32], space: AddressSpace, family: &str, index: u64) -> Self {
        let digest = derive_bytes(key, family, index);
        let mut hash = [0; 20];
        hash.copy_from_slice(&digest[..20]);
        let multisig = family == "user" && index % MULTISIG_EVERY == MULTISIG_EVERY - 1;
        Self::new(space.version(multisig), hash)
    }

    /// True if several keys sign for it.
    pub(super) fn is_multisig(&self) -> bool {
        matches!(self.version, address::MAINNET_MULTI | address::TESTNET_MULTI)
    }
}

/// An account, or a contract that an account deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// The account, or the contract's deployer.
    pub(super) account: Account,
    /// The contract's name, empty for a plain account.
    pub(super) contract: String,
}

impl Principal {
    /// The account itself.
    pub(super) fn account(account: Account) -> Self {
        Self { account, contract: String::new() }
    }

    /// `S….name` or `S…`.
    pub(super) fn text(&self) -> String {
        if self.contract.is_empty() {
            self.account.address.clone()
        } else {
            format!("{}.{}", self.account.address, self.contract)
        }
    }

    /// As a Clarity value: type 5 (standard) or 6 (contract).
    pub(super) fn write_clarity(&self, bytes: &mut Vec<u8>) {
        bytes.push(if self.contract.is_empty() { 0x05 } else { 0x06 });
        bytes.push(self.account.version);
        bytes.extend_from_slice(&self.account.hash);
        if !self.contract.is_empty() {
            bytes.push(self.contract.len() as u8);
            bytes.extend_from_slice(self.contract.as_bytes());
        }
    }
}

/// 32 bytes that depend on the key, what they are for, and a number.
pub(super) fn derive_bytes(key: &[u8; 32], purpose: &str, index: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(purpose.as_bytes());
    hash.update(index.to_be_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::{Account, AddressSpace};

    #[test]
    fn the_boot_account_has_its_well_known_addresses() {
        assert_eq!(Account::boot(AddressSpace::Mainnet).address, "SP000000000000000000002Q6VF78");
        assert_eq!(Account::boot(AddressSpace::Testnet).address, "ST000000000000000000002AMW42H");
    }

    #[test]
    fn an_account_depends_on_key_family_and_number_only() {
        let account = |key: u8, family: &str, index| Account::derive(&[key; 32], AddressSpace::Mainnet, family, index);
        assert_eq!(account(1, "user", 5), account(1, "user", 5));
        assert_ne!(account(1, "user", 5).hash, account(1, "user", 6).hash);
        assert_ne!(account(1, "user", 5).hash, account(2, "user", 5).hash);
        assert_ne!(account(1, "user", 5).hash, account(1, "maker", 5).hash);
    }

    #[test]
    fn multisig_accounts_have_their_own_version() {
        let account = Account::derive(&[1; 32], AddressSpace::Mainnet, "user", 96);
        assert!(account.is_multisig() && account.address.starts_with("SM"));
    }
}
