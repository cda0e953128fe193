//! Events as the node writes them: the object under the key named like the type, as JSON text.
//!
//! Not parsed values: COPY and recordings both want text, and only `synthetic::blocks` turns it into `serde_json::Value`.
//! Invariant: no text put in here needs JSON escapes (addresses, hex, decimal digits, names of letters, digits and hyphens).
//! Shapes: current nodes (3.4 and later), which send `raw_value` without `value`; amounts are decimal strings.

use super::clarity::{Clarity, prefixed_hex};

/// One event before it has a place in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Emitted {
    /// The node's name of the type.
    pub(super) kind: &'static str,
    /// The inner object, compact, keys in alphabetical order.
    pub(super) data: String,
}

/// STX from one principal to another; `memo` is there for plain transfers, empty where the contract gave none.
pub(super) fn stx_transfer(sender: &str, recipient: &str, amount: u64, memo: &[u8]) -> Emitted {
    let memo = prefixed_hex(memo);
    let (amount, memo) = (amount.to_string(), &memo[2..]);
    event("stx_transfer_event", &[("amount", &amount), ("memo", memo), ("recipient", recipient), ("sender", sender)])
}

/// New STX: genesis balances.
pub(super) fn stx_mint(recipient: &str, amount: u64) -> Emitted {
    event("stx_mint_event", &[("amount", &amount.to_string()), ("recipient", recipient)])
}

/// STX destroyed.
pub(super) fn stx_burn(sender: &str, amount: u64) -> Emitted {
    event("stx_burn_event", &[("amount", &amount.to_string()), ("sender", sender)])
}

/// STX locked for stacking until a Bitcoin height.
pub(super) fn stx_lock(contract: &str, address: &str, amount: u64, unlock_height: u64) -> Emitted {
    let (amount, unlock) = (amount.to_string(), unlock_height.to_string());
    let fields = [
        ("contract_identifier", contract),
        ("locked_address", address),
        ("locked_amount", &*amount),
        ("unlock_height", &*unlock),
    ];
    event("stx_lock_event", &fields)
}

/// Fungible tokens from one principal to another.
pub(super) fn ft_transfer(asset: &str, sender: &str, recipient: &str, amount: u64) -> Emitted {
    let amount = amount.to_string();
    event("ft_transfer_event", &[("amount", &amount), ("asset_identifier", asset), ("recipient", recipient), ("sender", sender)])
}

/// New fungible tokens.
pub(super) fn ft_mint(asset: &str, recipient: &str, amount: u64) -> Emitted {
    event("ft_mint_event", &[("amount", &amount.to_string()), ("asset_identifier", asset), ("recipient", recipient)])
}

/// Fungible tokens destroyed.
pub(super) fn ft_burn(asset: &str, sender: &str, amount: u64) -> Emitted {
    event("ft_burn_event", &[("amount", &amount.to_string()), ("asset_identifier", asset), ("sender", sender)])
}

/// One token from one principal to another.
pub(super) fn nft_transfer(asset: &str, sender: &str, recipient: &str, id: &Clarity) -> Emitted {
    let id = id.hex();
    event("nft_transfer_event", &[("asset_identifier", asset), ("raw_value", &id), ("recipient", recipient), ("sender", sender)])
}

/// A new token.
pub(super) fn nft_mint(asset: &str, recipient: &str, id: &Clarity) -> Emitted {
    event("nft_mint_event", &[("asset_identifier", asset), ("raw_value", &id.hex()), ("recipient", recipient)])
}

/// A token destroyed.
pub(super) fn nft_burn(asset: &str, sender: &str, id: &Clarity) -> Emitted {
    event("nft_burn_event", &[("asset_identifier", asset), ("raw_value", &id.hex()), ("sender", sender)])
}

/// What a contract printed.
pub(super) fn print(contract: &str, value: &Clarity) -> Emitted {
    event("contract_event", &[("contract_identifier", contract), ("raw_value", &value.hex()), ("topic", "print")])
}

fn event(kind: &'static str, fields: &[(&str, &str)]) -> Emitted {
    Emitted { kind, data: object(fields) }
}

/// A JSON object of strings that need no escapes.
pub(super) fn object(fields: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(2 + fields.iter().map(|(key, value)| key.len() + value.len() + 6).sum::<usize>());
    for (key, value) in fields {
        debug_assert!(!value.contains(['"', '\\']) && value.is_ascii());
        text.push(if text.is_empty() { '{' } else { ',' });
        for part in ["\"", key, "\":\"", value, "\""] {
            text.push_str(part);
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::{Clarity, print, stx_transfer};

    #[test]
    fn events_are_compact_json_with_decimal_strings() {
        let transfer = stx_transfer("A", "B", 5, &[0xab]);
        assert_eq!(transfer.data, r#"{"amount":"5","memo":"ab","recipient":"B","sender":"A"}"#);
        let print = print("A.b", &Clarity::none());
        assert_eq!(print.data, r#"{"contract_identifier":"A.b","raw_value":"0x09","topic":"print"}"#);
    }
}
