//! Synthetic blocks in the form every other part of this crate knows.
//!
//! Not the fast path: loading and recording write text straight from what was drawn.
//! Invariant: equal to what decoding the block's payload gives.

use super::Spec;
use super::drawn::{Chain, Drawn};
use super::header::Branch;
use super::transaction::Tx;
use crate::json::JsonText;
use crate::model::{Block, Event, Transaction};

/// The canonical blocks of a chain, genesis first.
pub fn blocks(spec: &Spec) -> impl Iterator<Item = Block> + Send + use<> {
    let chain = Chain::new(spec);
    (0..spec.blocks).map(move |height| block(chain.block(height, Branch::Winner)))
}

fn block(drawn: Drawn) -> Block {
    let header = drawn.header;
    let events = drawn.transactions.iter().flat_map(|tx| tx.events.iter().map(|event| (tx.tx_id.clone(), event)));
    let events = (0..).zip(events).map(|(event_index, (tx_id, event))| Event {
        tx_id,
        event_index,
        kind: event.kind.to_owned(),
        committed: true,
        data: JsonText::parse(event.data.clone()).expect("events are written as JSON"),
    });
    Block {
        height: header.height,
        timestamp: header.timestamp(),
        hash: header.own.hash,
        parent_hash: header.parent.hash,
        index_block_hash: header.own.index_hash,
        parent_index_block_hash: header.parent.index_hash,
        burn_block_height: header.burn.height,
        burn_block_hash: header.burn.hash,
        events: events.collect(),
        transactions: (0..).zip(drawn.transactions).map(|(index, tx)| transaction(index, tx)).collect(),
    }
}

fn transaction(tx_index: u32, tx: Tx) -> Transaction {
    Transaction {
        tx_id: tx.tx_id,
        tx_index,
        kind: tx.kind.to_owned(),
        sender: tx.sender,
        status: tx.status.to_owned(),
        contract_id: tx.contract_id,
        function_name: tx.function_name.map(str::to_owned),
        function_args: tx.function_args,
        raw_result: Some(tx.raw_result),
        raw_tx: tx.raw_tx,
    }
}
