//! Source code of deployed contracts: Clarity text of a given length, and the interface a node derives from it.
//!
//! Not meant to run. Invariant: the text is balanced, printable Clarity, at least as long as asked for.

use super::draw::Draw;
use super::emit::object;
use super::shape;

/// Source text of about `length` bytes.
pub(super) fn text(draw: &mut Draw, length: u64) -> String {
    let mut source = String::with_capacity(length as usize + 400);
    source.push_str(";; Keeps balances of members, who may hand them on.\n(define-constant err-not-owner (err u100))\n");
    source.push_str("(define-data-var owner principal tx-sender)\n(define-map balances principal uint)\n\n");
    while (source.len() as u64) < length {
        function(&mut source, draw);
    }
    source
}

/// What the node says about a contract of that source: `contract_interface` of the payload.
pub(super) fn interface(draw: &mut Draw) -> String {
    let functions: Vec<String> = (0..draw.between(1, 5)).map(|_| interface_function(draw)).collect();
    let variable = object(&[("access", "variable"), ("name", "owner"), ("type", "principal")]);
    let map = object(&[("key", "principal"), ("name", "balances"), ("value", "uint128")]);
    format!(
        r#"{{"clarity_version":"Clarity3","epoch":"Epoch30","functions":[{}],"fungible_tokens":[],"maps":[{map}],"non_fungible_tokens":[],"variables":[{variable}]}}"#,
        functions.join(",")
    )
}

fn function(source: &mut String, draw: &mut Draw) {
    let name = name(draw);
    let (limit, fee) = (draw.between(10, 9_999), draw.between(1, 500));
    source.push_str(&format!(
        "(define-public (set-{name} (who principal) (amount uint))\n  (let ((held (default-to u0 (map-get? balances who))))\n    \
         (asserts! (is-eq tx-sender (var-get owner)) err-not-owner)\n    (asserts! (<= amount u{limit}) (err u{fee}))\n    \
         (print {{event: \"set-{name}\", who: who, amount: amount}})\n    (map-set balances who (+ held amount))\n    (ok held)))\n\n"
    ));
    if draw.chance(500_000) {
        source.push_str(&format!(
            "(define-read-only (get-{name} (who principal))\n  (default-to u{fee} (map-get? balances who)))\n\n"
        ));
    }
}

fn interface_function(draw: &mut Draw) -> String {
    let args = [object(&[("name", "who"), ("type", "principal")]), object(&[("name", "amount"), ("type", "uint128")])].join(",");
    let outputs = r#"{"type":{"response":{"error":"uint128","ok":"uint128"}}}"#;
    format!(r#"{{"access":"public","args":[{args}],"name":"set-{}","outputs":{outputs}}}"#, name(draw))
}

fn name(draw: &mut Draw) -> String {
    format!("{}-{}", draw.pick(shape::FIRST_WORDS), draw.pick(shape::SECOND_WORDS))
}

#[cfg(test)]
mod tests {
    use super::{Draw, interface, text};

    #[test]
    fn source_is_balanced_and_long_enough() {
        let source = text(&mut Draw::new([1; 32], 0), 5_000);
        assert!((5_000..6_000).contains(&source.len()));
        assert_eq!(source.matches('(').count(), source.matches(')').count());
    }

    #[test]
    fn the_interface_is_json() {
        let parsed: serde_json::Value = serde_json::from_str(&interface(&mut Draw::new([1; 32], 0))).expect("json");
        assert!(parsed["functions"][0]["name"].as_str().is_some_and(|name| name.starts_with("set-")));
    }
}
