//! Stacks addresses: `S` + c32(version) + c32(hash160 ‖ checksum), as SIP-005 defines them.
//!
//! The version of a sender follows from its hash mode: only mode 0 (P2PKH) has the single-signature version, every other
//! mode, P2WPKH included, has the multi-signature one (stacks-core does so; the original indexer does not for mode 2).

/// Version byte of single-signature addresses on mainnet (`SP…`).
pub const MAINNET_SINGLE: u8 = 22;
/// Version byte of multi-signature addresses on mainnet (`SM…`).
pub const MAINNET_MULTI: u8 = 20;
/// Version byte of single-signature addresses on every other network (`ST…`).
pub const TESTNET_SINGLE: u8 = 26;
/// Version byte of multi-signature addresses on every other network (`SN…`).
pub const TESTNET_MULTI: u8 = 21;

/// Why bytes or text are no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Versions are five bits, since one c32 digit holds them.
    #[error("address version {0} is above 31")]
    Version(u8),
    /// Not an address with a correct checksum.
    #[error("{0:?} is not a c32 address of 20 bytes with a correct checksum")]
    Text(String),
}

/// The c32 address of a 20-byte hash.
///
/// # Errors
/// When the version does not fit one c32 digit.
pub fn encode(version: u8, hash160: &[u8; 20]) -> Result<String, AddressError> {
    c32::encode_check_prefixed(hash160, 'S', version).map_err(|_| AddressError::Version(version))
}

/// The version and 20-byte hash of a c32 address.
///
/// # Errors
/// When the text is not `S…`, has a wrong checksum, or does not hold 20 bytes.
pub fn decode(text: &str) -> Result<(u8, [u8; 20]), AddressError> {
    let bad = || AddressError::Text(text.to_owned());
    let (bytes, version) = c32::decode_check_prefixed(text, 'S').map_err(|_| bad())?;
    Ok((version, bytes.try_into().map_err(|_| bad())?))
}

/// The address version of a spending condition's hash mode.
#[must_use]
pub fn version_of(mainnet: bool, hash_mode: u8) -> u8 {
    match (mainnet, hash_mode) {
        (true, 0) => MAINNET_SINGLE,
        (true, _) => MAINNET_MULTI,
        (false, 0) => TESTNET_SINGLE,
        (false, _) => TESTNET_MULTI,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_addresses_encode_and_decode() {
        for (version, hash, text) in [
            (22, "f2bba6df751755ab9ac1df8b387d981cfe265cdf", "SP3SBQ9PZEMBNBAWTR7FRPE3XK0EFW9JWVX4G80S2"),
            (26, "0000000000000000000000000000000000000000", "ST000000000000000000002AMW42H"),
        ] {
            let mut hash160 = [0; 20];
            hex::decode_to_slice(hash, &mut hash160).expect("hex");
            assert_eq!(encode(version, &hash160).expect("address"), text);
            assert_eq!(decode(text).expect("decodes"), (version, hash160));
        }
    }

    #[test]
    fn a_wrong_checksum_and_a_wide_version_are_refused() {
        assert!(decode("ST000000000000000000002AMW42J").is_err());
        assert!(decode("nonsense").is_err());
        assert!(encode(32, &[0; 20]).is_err());
    }

    #[test]
    fn only_hash_mode_0_has_the_single_signature_version() {
        assert_eq!(version_of(true, 0), 22);
        assert_eq!(version_of(false, 0), 26);
        for mode in [1, 2, 3, 5, 7] {
            assert_eq!((version_of(true, mode), version_of(false, mode)), (20, 21));
        }
    }
}
