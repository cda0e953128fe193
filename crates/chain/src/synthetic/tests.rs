//! The generator against its targets, against itself, and against this crate's decoder.

use std::collections::BTreeMap;

use super::{Profile, Spec, blocks, write_recording};
use crate::canonical::canonical_chain;
use crate::digest::chain_digests;
use crate::model::Block;
use crate::payload::{decode_block, describe};
use crate::recording::Recording;

fn spec(blocks: u64, seed: u64, profile: Profile) -> Spec {
    Spec { blocks, seed, profile, network: "mainnet".to_owned() }
}

#[derive(Default)]
struct Measured {
    blocks: f64,
    transactions: f64,
    events: f64,
    event_bytes: f64,
    kinds: BTreeMap<String, f64>,
    statuses: BTreeMap<String, f64>,
    event_kinds: BTreeMap<String, f64>,
}

impl Measured {
    fn of(chain: impl Iterator<Item = Block>) -> Self {
        let mut measured = Self::default();
        // Genesis is like no other block.
        for block in chain.skip(1) {
            measured.blocks += 1.0;
            measured.transactions += block.transactions.len() as f64;
            measured.events += block.events.len() as f64;
            for tx in block.transactions {
                *measured.kinds.entry(tx.kind).or_default() += 1.0;
                *measured.statuses.entry(tx.status).or_default() += 1.0;
            }
            for event in block.events {
                measured.event_bytes += event.data.text().len() as f64;
                *measured.event_kinds.entry(event.kind).or_default() += 1.0;
            }
        }
        measured
    }
}

fn near(what: &str, measured: f64, target: f64) {
    assert!((measured / target - 1.0).abs() <= 0.15, "{what}: {measured} is not within 15 % of {target}");
}

#[test]
fn a_nakamoto_chain_has_the_shapes_of_mainnet_within_15_percent() {
    let measured = Measured::of(blocks(&spec(5_000, 1, Profile::Nakamoto)));
    near("transactions per block", measured.transactions / measured.blocks, 3.2);
    near("events per block", measured.events / measured.blocks, 16.0);
    near("events per transaction", measured.events / measured.transactions, 5.0);
    near("bytes of event data", measured.event_bytes / measured.events, 270.0);
    for (kind, target) in [("contract_call", 0.71), ("token_transfer", 0.25), ("smart_contract", 0.0235)] {
        near(kind, measured.kinds[kind] / measured.transactions, target);
    }
    for (kind, target) in [
        ("contract_event", 0.36),
        ("stx_transfer_event", 0.26),
        ("ft_transfer_event", 0.18),
        ("ft_mint_event", 0.11),
        ("nft_mint_event", 0.05),
    ] {
        near(kind, measured.event_kinds[kind] / measured.events, target);
    }
    let aborted = 1.0 - measured.statuses["success"] / measured.transactions;
    assert!((0.02..0.03).contains(&aborted), "aborted: {aborted}");
    assert_eq!(measured.event_kinds.len(), 10, "every type but genesis' mints: {:?}", measured.event_kinds);
}

#[test]
fn an_anchored_chain_has_full_blocks_and_a_quiet_one_hardly_anything() {
    let anchored = Measured::of(blocks(&spec(150, 1, Profile::Anchored)));
    near("transactions per anchored block", anchored.transactions / anchored.blocks, 121.0);
    let quiet = Measured::of(blocks(&spec(2_000, 1, Profile::Quiet)));
    near("transactions per quiet block", quiet.transactions / quiet.blocks, 1.0);
    near("transfers", quiet.kinds["token_transfer"] / quiet.transactions, 0.86);
}

#[test]
fn giants_of_several_hundred_events_occur() {
    let most = blocks(&spec(3_000, 1, Profile::Nakamoto)).map(|block| block.events.len()).max();
    assert!(most > Some(300), "{most:?}");
}

#[test]
fn a_block_does_not_depend_on_the_number_of_blocks_but_on_seed_and_network() {
    let short: Vec<Block> = blocks(&spec(40, 1, Profile::Nakamoto)).collect();
    let long: Vec<Block> = blocks(&spec(400, 1, Profile::Nakamoto)).take(40).collect();
    assert_eq!(short, long);
    assert_ne!(short, blocks(&spec(40, 2, Profile::Nakamoto)).collect::<Vec<_>>());
    let testnet = Spec { network: "testnet".to_owned(), ..spec(40, 1, Profile::Nakamoto) };
    assert!(blocks(&testnet).skip(1).all(|block| {
        block.transactions.iter().all(|tx| tx.sender.starts_with("ST") || tx.sender.starts_with("SN") || tx.sender == "unknown")
    }));
}

#[test]
fn every_raw_transaction_decodes_to_what_is_said_of_it() {
    for profile in [Profile::Nakamoto, Profile::Anchored, Profile::Quiet] {
        for tx in
            blocks(&spec(if profile == Profile::Anchored { 30 } else { 1_500 }, 4, profile)).flat_map(|block| block.transactions)
        {
            if tx.raw_tx == "0x00" {
                assert_eq!((tx.kind.as_str(), tx.sender.as_str()), ("unknown", "unknown"));
                continue;
            }
            let raw = hex::decode(&tx.raw_tx[2..]).expect("hex");
            let decoded = describe(&raw).unwrap_or_else(|error| panic!("{} {}: {error}", tx.kind, tx.tx_id));
            assert_eq!(decoded.kind, tx.kind);
            assert_eq!(decoded.sender, tx.sender);
            assert_eq!(decoded.contract_id, tx.contract_id);
            assert_eq!(decoded.function_name, tx.function_name);
            assert_eq!(decoded.function_args, tx.function_args);
            assert_eq!(crate::transaction::txid(&raw), tx.tx_id);
        }
    }
}

#[test]
fn every_clarity_value_in_events_and_results_decodes() {
    for block in blocks(&spec(400, 4, Profile::Nakamoto)) {
        let raw_values = block.events.iter().filter_map(|event| {
            let data = event.data.tree().expect("json");
            data["raw_value"].as_str().map(str::to_owned)
        });
        let results = block.transactions.iter().filter_map(|tx| tx.raw_result.clone());
        for value in raw_values.chain(results) {
            crate::clarity::decode(&hex::decode(&value[2..]).expect("hex")).unwrap_or_else(|error| panic!("{value}: {error}"));
        }
    }
}

#[test]
fn a_recording_holds_the_canonical_chain_however_disturbed() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, seed, profile) in
        [("a.ndjson.gz", 1, Profile::Nakamoto), ("b.ndjson", 9, Profile::Anchored), ("c.ndjson.gz", 3, Profile::Quiet)]
    {
        let spec = spec(205, seed, profile);
        let path = folder.path().join(name);
        let expected = write_recording(&spec, &path).expect("written");
        let posts: Vec<_> = Recording::open(&path).expect("opens").map(|post| post.expect("a post")).collect();
        let received = posts
            .iter()
            .filter(|post| post.path == "/new_block")
            .map(|post| decode_block(post.payload.text().as_bytes()).expect("decodes"));
        let received: Vec<Block> =
            received.inspect(|decoded| assert!(decoded.undecodable.is_empty())).map(|decoded| decoded.block).collect();
        let canonical = canonical_chain(&received);
        assert!(
            canonical.iter().copied().eq(&blocks(&spec).collect::<Vec<_>>()),
            "{name}: the canonical blocks are those of `blocks`"
        );
        let digests = chain_digests(canonical);
        assert_eq!(digests.blocks, expected.canonical_digest_sha256.blocks);
        assert_eq!(digests.transactions, expected.canonical_digest_sha256.transactions);
        assert_eq!(digests.events, expected.canonical_digest_sha256.events);
        check_counts(&expected.counts, &posts, &received);
        let beside = std::fs::read_to_string(format!("{}.expected.json", path.display())).expect("expectations");
        assert!(beside.contains(&digests.events));
    }
}

fn check_counts(counts: &super::Counts, posts: &[crate::recording::Post], received: &[Block]) {
    let mut unique: BTreeMap<&str, &Block> = BTreeMap::new();
    received.iter().for_each(|block| {
        unique.entry(&block.index_block_hash).or_insert(block);
    });
    assert_eq!(counts.lines, posts.len() as u64);
    assert_eq!(counts.blocks_received, received.len() as u64);
    assert_eq!(counts.blocks_unique, unique.len() as u64);
    assert_eq!(counts.transactions, unique.values().map(|block| block.transactions.len() as u64).sum::<u64>());
    assert_eq!(counts.events, unique.values().map(|block| block.events.len() as u64).sum::<u64>());
    assert!(counts.orphaned_blocks >= 2 && counts.reorgs.len() == 1, "a fork of each sort: {:?}", counts.reorgs);
    assert!(counts.redelivered_blocks >= 1);
    let burn: Vec<_> = posts.iter().filter(|post| post.path == "/new_burn_block").map(|post| post.payload.text()).collect();
    assert_eq!(counts.burn_blocks, burn.len() as u64);
    assert_eq!(counts.burn_blocks_unique, burn.iter().collect::<std::collections::HashSet<_>>().len() as u64);
}

#[test]
fn a_losing_block_shares_most_of_its_transactions_with_the_winner() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("chain.ndjson");
    let spec = spec(200, 1, Profile::Anchored);
    let expected = write_recording(&spec, &path).expect("written");
    let orphan = &expected.counts.reorgs[0].orphaned[0];
    let posts = Recording::open(&path).expect("opens").map(|post| post.expect("a post")).filter(|post| post.path == "/new_block");
    let loser = posts
        .map(|post| decode_block(post.payload.text().as_bytes()).expect("decodes").block)
        .find(|block| block.index_block_hash == orphan.index_block_hash)
        .expect("the orphan was posted");
    let winners: std::collections::HashSet<String> =
        blocks(&spec).flat_map(|block| block.transactions).map(|tx| tx.tx_id).collect();
    let shared =
        loser.transactions.iter().filter(|tx| winners.contains(&tx.tx_id)).count() as f64 / loser.transactions.len() as f64;
    assert!((0.5..0.9).contains(&shared), "{shared}");
}

#[test]
fn recordings_are_the_same_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str| {
        let path = folder.path().join(name);
        write_recording(&spec(120, 5, Profile::Nakamoto), &path).expect("written");
        std::fs::read(path).expect("read")
    };
    assert!(write("one.ndjson.gz") == write("two.ndjson.gz"));
}

#[test]
fn a_chain_of_no_blocks_is_refused() {
    let error = write_recording(&spec(0, 1, Profile::Quiet), std::path::Path::new("/nowhere")).expect_err("refused");
    assert_eq!(error.to_string(), "a chain of 0 blocks has nothing to write: ask for at least 1");
}
