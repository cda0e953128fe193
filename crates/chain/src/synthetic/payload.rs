//! Bodies of `/new_block` and `/new_burn_block` as a node of 2026 posts them.
//!
//! Not rows (see `rows`). Sources: the node's event-dispatcher documentation and the keys of real posts. Invariants: a block's
//! body is the same each time it is made; its `events` are in no order.

use std::fmt::Write;

use super::clarity::prefixed_hex;
use super::draw::Draw;
use super::drawn::{Chain, Drawn, Purpose};
use super::header::{Branch, Header};
use super::transaction::Tx;

/// Signatures on a Nakamoto block.
const SIGNERS: usize = 16;
const NO_COST: &str = r#"{"read_count":0,"read_length":0,"runtime":0,"write_count":0,"write_length":0}"#;

/// The body of `/new_block`; `branch` is the block's.
pub(super) fn new_block(chain: &Chain, block: &Drawn, branch: Branch) -> String {
    let purpose = if branch == Branch::Winner { Purpose::Dressing } else { Purpose::LoserDressing };
    let mut draw = chain.stream(block.header.height, purpose);
    let mut body = String::with_capacity(4_096 + block.events() * 700 + block.transactions.len() * 1_600);
    body.push_str(r#"{"anchored_cost":"#);
    body.push_str(&cost(&mut draw));
    header(&mut body, &block.header);
    rewards(&mut body, chain, &block.header, &mut draw);
    signatures(&mut body, &block.header, &mut draw);
    body.push_str(r#","events":["#);
    body.push_str(&events(block, &mut draw).join(","));
    body.push_str(r#"],"transactions":["#);
    for (index, tx) in block.transactions.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        transaction(&mut body, index, tx, &mut draw);
    }
    body.push_str("]}");
    body
}

/// The body of `/new_burn_block` for the Bitcoin block that a block is anchored to.
pub(super) fn new_burn_block(header: &Header, chain: &Chain) -> String {
    let mut draw = chain.stream(header.burn.height, Purpose::Dressing);
    let recipient = |draw: &mut Draw| {
        let (address, amount) = (prefixed_hex(&draw.bytes::<20>()), draw.between(1_000, 90_000));
        format!(r#"{{"amt":{amount},"recipient":"bc1q{}"}}"#, &address[2..])
    };
    let recipients = [recipient(&mut draw), recipient(&mut draw)].join(",");
    format!(
        r#"{{"burn_amount":{},"burn_block_hash":"{}","burn_block_height":{},"consensus_hash":"{}","parent_burn_block_hash":"{}","reward_recipients":[{recipients}],"reward_slot_holders":[]}}"#,
        draw.between(10_000, 200_000),
        header.burn.hash,
        header.burn.height,
        header.own.consensus_hash,
        header.parent_burn.hash,
    )
}

fn header(body: &mut String, header: &Header) {
    let time = header.block_time.map_or("null".to_owned(), |time| time.to_string());
    let texts = [
        ("block_hash", &header.own.hash),
        ("burn_block_hash", &header.burn.hash),
        ("consensus_hash", &header.own.consensus_hash),
        ("index_block_hash", &header.own.index_hash),
        ("miner_txid", &header.miner_txid),
        ("parent_block_hash", &header.parent.hash),
        ("parent_burn_block_hash", &header.parent_burn.hash),
        ("parent_index_block_hash", &header.parent.index_hash),
        ("parent_microblock", &prefixed_hex(&[0; 32])),
    ];
    let numbers = [
        ("block_height", header.height),
        ("burn_block_height", header.burn.height),
        ("burn_block_time", header.burn.time),
        ("parent_burn_block_height", header.parent_burn.height),
        ("parent_burn_block_timestamp", header.parent_burn.time),
        ("parent_microblock_sequence", 0),
        ("pox_v1_unlock_height", 781_552),
        ("pox_v2_unlock_height", 787_652),
        ("pox_v3_unlock_height", 842_451),
        ("tenure_height", header.tenure.index + u64::from(header.height > 0)),
    ];
    for (key, value) in texts {
        push(body, format_args!(r#","{key}":"{value}""#));
    }
    for (key, value) in numbers {
        push(body, format_args!(r#","{key}":{value}"#));
    }
    push(
        body,
        format_args!(r#","block_time":{time},"confirmed_microblocks_cost":{NO_COST},"cycle_number":null,"reward_set":null"#),
    );
}

/// The miner of a hundred tenures ago is paid when a tenure starts.
fn rewards(body: &mut String, chain: &Chain, header: &Header, draw: &mut Draw) {
    body.push_str(r#","matured_miner_rewards":["#);
    if header.starts_tenure() && header.tenure.index >= 100 {
        let miner = chain.miner(header.tenure.index - 100).address;
        let (block, index) = (prefixed_hex(&draw.bytes::<32>()), prefixed_hex(&draw.bytes::<32>()));
        let fees = draw.between(1_000, 9_000_000);
        push(
            body,
            format_args!(
                r#"{{"coinbase_amount":"1000000000","from_index_consensus_hash":"{index}","from_stacks_block_hash":"{block}","miner_address":"{miner}","recipient":"{miner}","tx_fees_anchored":"{fees}","tx_fees_streamed_confirmed":"0","tx_fees_streamed_produced":"0"}}"#
            ),
        );
    }
    body.push(']');
}

/// What only Nakamoto headers have.
fn signatures(body: &mut String, header: &Header, draw: &mut Draw) {
    if header.block_time.is_none() {
        body.push_str(r#","signer_bitvec":null"#);
        return;
    }
    let signature = |draw: &mut Draw| prefixed_hex(&draw.bytes::<65>());
    let miner = signature(draw);
    let signers: Vec<String> = (0..SIGNERS).map(|_| format!("\"{}\"", &signature(draw)[2..])).collect();
    push(
        body,
        format_args!(
            r#","miner_signature":"{miner}","signer_bitvec":"000800000001ff","signer_signature":[{}],"signer_signature_hash":"{}""#,
            signers.join(","),
            header.own.hash,
        ),
    );
}

fn events(block: &Drawn, draw: &mut Draw) -> Vec<String> {
    let all = block.transactions.iter().flat_map(|tx| tx.events.iter().map(move |event| (&tx.tx_id, event)));
    let mut texts: Vec<String> = all
        .enumerate()
        .map(|(index, (tx_id, event))| {
            let (kind, data) = (event.kind, &event.data);
            format!(r#"{{"committed":true,"event_index":{index},"{kind}":{data},"txid":"{tx_id}","type":"{kind}"}}"#)
        })
        .collect();
    draw.shuffle(&mut texts);
    texts
}

fn transaction(body: &mut String, index: usize, tx: &Tx, draw: &mut Draw) {
    let (operation, interface) = (tx.burnchain_op.as_deref().unwrap_or("null"), tx.interface.as_deref().unwrap_or("null"));
    let vm_error = if tx.status == "success" { "null" } else { "\"the transaction was undone\"" };
    let cost = if tx.kind == "contract_call" { cost(draw) } else { NO_COST.to_owned() };
    push(
        body,
        format_args!(
            r#"{{"burnchain_op":{operation},"contract_interface":{interface},"execution_cost":{cost},"microblock_hash":null,"microblock_parent_hash":null,"microblock_sequence":null,"raw_result":"{}","raw_tx":"{}","status":"{}","tx_index":{index},"txid":"{}","vm_error":{vm_error}}}"#,
            tx.raw_result, tx.raw_tx, tx.status, tx.tx_id,
        ),
    );
}

fn cost(draw: &mut Draw) -> String {
    let [reads, length, runtime, writes] =
        [draw.between(3, 90), draw.between(900, 400_000), draw.between(9_000, 900_000), draw.between(1, 20)];
    format!(
        r#"{{"read_count":{reads},"read_length":{length},"runtime":{runtime},"write_count":{writes},"write_length":{}}}"#,
        writes * 31
    )
}

fn push(body: &mut String, text: std::fmt::Arguments<'_>) {
    body.write_fmt(text).expect("a string takes any text");
}
