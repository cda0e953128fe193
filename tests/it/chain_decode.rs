//! The decoder, the readers of recordings and the digests, against recordings of real nodes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chain::canonical::canonical_chain;
use chain::clarity;
use chain::digest::chain_digests;
use chain::model::Block;
use chain::payload::{decode_block, describe};
use chain::recording::Recording;
use chain::transaction::{RawTransaction, txid};
use serde_json::Value;

use crate::support::shared_data;

/// The recordings and what a correct indexer makes of each.
pub(crate) fn recordings() -> Result<Vec<(PathBuf, Value)>> {
    let Some(data) = shared_data() else { return Ok(Vec::new()) };
    let counts: Value = serde_json::from_slice(&std::fs::read(data.join("counts.json"))?)?;
    let counts = counts.as_object().context("counts.json is no object")?;
    let recordings = counts.iter().filter(|(name, _)| name.starts_with("recordings/"));
    Ok(recordings.map(|(name, expected)| (data.join(name), expected.clone())).collect())
}

/// Every block of a recording, in order of arrival.
pub(crate) fn blocks(path: &Path) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for post in Recording::open(path)? {
        let post = post?;
        if post.path == "/new_block" {
            let decoded = decode_block(post.payload.text().as_bytes())?;
            anyhow::ensure!(decoded.undecodable.is_empty(), "{}: {:?}", path.display(), decoded.undecodable);
            blocks.push(decoded.block);
        }
    }
    Ok(blocks)
}

/// Fails unless counts and digests of a canonical chain are the expected ones.
pub(crate) fn assert_chain<'a>(name: &Path, chain: impl IntoIterator<Item = &'a Block> + Clone, expected: &Value) {
    let count = |of: fn(&Block) -> usize| chain.clone().into_iter().map(of).sum::<usize>();
    let counts = &expected["counts"];
    assert_eq!(counts["canonical_blocks"], count(|_| 1), "blocks of {}", name.display());
    assert_eq!(counts["canonical_transactions"], count(|b| b.transactions.len()), "transactions of {}", name.display());
    assert_eq!(counts["canonical_events"], count(|b| b.events.len()), "events of {}", name.display());
    let digests = chain_digests(chain);
    let wanted = &expected["canonical_digest_sha256"];
    assert_eq!(wanted["blocks"], digests.blocks, "blocks of {}", name.display());
    assert_eq!(wanted["transactions"], digests.transactions, "transactions of {}", name.display());
    assert_eq!(wanted["events"], digests.events, "events of {}", name.display());
}

/// The same order for the same seed, on every machine.
pub(crate) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from((state >> 33) % (at as u64 + 1)).unwrap_or(0);
        items.swap(at, other);
    }
}

#[test]
fn every_recording_decodes_to_the_expected_canonical_chain() -> Result<()> {
    for (path, expected) in recordings()? {
        let blocks = blocks(&path)?;
        assert_eq!(expected["counts"]["blocks_received"], blocks.len());
        assert_chain(&path, canonical_chain(&blocks), &expected);
    }
    Ok(())
}

#[test]
fn the_canonical_chain_is_the_same_in_any_order_of_arrival() -> Result<()> {
    for (path, expected) in recordings()? {
        let mut blocks = blocks(&path)?;
        for seed in 1..=5 {
            shuffle(&mut blocks, seed);
            assert_chain(&path, canonical_chain(&blocks), &expected);
        }
    }
    Ok(())
}

#[test]
fn every_transaction_hashes_to_the_id_the_node_gave() -> Result<()> {
    for (path, _) in recordings()? {
        for tx in blocks(&path)?.iter().flat_map(|block| &block.transactions).filter(|tx| tx.raw_tx != "0x00") {
            let raw = hex::decode(tx.raw_tx.trim_start_matches("0x"))?;
            assert_eq!(txid(&raw), tx.tx_id, "{}", path.display());
        }
    }
    Ok(())
}

#[test]
fn every_sampled_argument_list_decodes_to_its_exact_end() -> Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let file = std::fs::File::open(data.join("samples/mainnet-contract-call-args.txt.gz"))?;
    let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(file))?;
    let mut lines = 0;
    for line in text.lines() {
        lines += 1;
        let bytes = hex::decode(line)?;
        for argument in clarity::argument_list(&bytes).with_context(|| line.to_owned())? {
            assert_eq!(clarity::length(argument), Ok(argument.len()));
            clarity::decode(argument).with_context(|| line.to_owned())?;
        }
    }
    assert_eq!(lines, 620);
    Ok(())
}

#[test]
fn raw_values_of_recorded_events_decode() -> Result<()> {
    for (path, _) in recordings()? {
        for event in blocks(&path)?.iter().flat_map(|block| &block.events) {
            if let Some(raw) = event.data.tree()?["raw_value"].as_str() {
                clarity::decode(&hex::decode(raw.trim_start_matches("0x"))?).with_context(|| raw.to_owned())?;
            }
        }
    }
    Ok(())
}

#[test]
fn unconnected_sample_blocks_decode_and_bitcoin_operations_have_no_sender() -> Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let blocks = blocks(&data.join("samples/single-new-block.ndjson.gz"))?;
    assert_eq!(blocks.iter().map(|b| b.height).collect::<Vec<_>>(), [227, 253, 47, 120]);
    assert_eq!(blocks.iter().map(|b| b.transactions.len()).sum::<usize>(), 9);
    assert_eq!(blocks.iter().map(|b| b.events.len()).sum::<usize>(), 5);
    let operations = blocks.iter().flat_map(|b| &b.transactions).filter(|tx| tx.raw_tx == "0x00").collect::<Vec<_>>();
    assert!(!operations.is_empty());
    assert!(operations.iter().all(|tx| tx.kind == "unknown" && tx.sender == "unknown"));
    Ok(())
}

#[test]
fn mainnet_transactions_of_2024_to_2026_decode_from_the_replay_format() -> Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let file = std::fs::File::open(data.join("samples/mainnet-nakamoto-replay.ndjson.gz"))?;
    let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(file))?;
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines() {
        let block: Value = serde_json::from_str(line)?;
        for tx in block["transactions"].as_array().context("transactions")? {
            let raw = hex::decode(tx["hex"].as_str().context("hex")?)?;
            let id = tx["txid"].as_str().context("txid")?;
            assert_eq!(txid(&raw), format!("0x{id}"));
            assert_eq!(tx["data"]["chain_id"], RawTransaction::decode(&raw)?.chain_id);
            *kinds.entry(describe(&raw)?.kind).or_insert(0) += 1;
        }
    }
    let expected = [("coinbase", 1), ("contract_call", 13), ("smart_contract", 2), ("tenure_change", 2), ("token_transfer", 9)];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn a_body_that_is_no_block_says_what_is_wrong() {
    let said = |body: &[u8]| decode_block(body).expect_err("is no block").to_string();
    assert!(said(b"\xff").contains("utf-8"));
    assert!(said(b"{}").contains("missing field"));
    assert!(said(b"[1,2").contains("not the JSON of a block"));
}
