//! Ingest: whatever the order of arrival, the chain tables end as the canonical chain.

use anyhow::{Context, Result};
use chain::canonical::canonical_chain;
use chain::ingest::{Ingest, IngestError, Outcome};
use chain::model::Block;
use chain::reader::read_blocks;
use chain::recording::Recording;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::chain_decode::{assert_chain, blocks, recordings, shuffle};
use crate::support::{TestDatabase, database, shared_data};

/// Everything in a database.
const ALL: std::ops::RangeInclusive<u64> = 0..=u64::MAX;

pub(crate) async fn empty_chain() -> Result<(TestDatabase, PgPool, Ingest)> {
    let database = database().await;
    let pool = database.pool().await;
    chain::migrate(&pool).await?;
    let ingest = Ingest::new(pool.clone(), "mainnet");
    Ok((database, pool, ingest))
}

pub(crate) async fn stored(pool: &PgPool) -> Result<Vec<Block>> {
    Ok(read_blocks(&mut *pool.acquire().await?, ALL).await?)
}

/// Everything that the chain tables hold but ids and times of insertion, in an order of its own.
pub(crate) async fn contents(pool: &PgPool) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select (to_jsonb(b) - 'created_at')::text as row from public.blocks b
         union all select (to_jsonb(t) - 'created_at')::text from public.transactions t
         union all select (to_jsonb(e) - 'created_at' - 'id')::text from public.events e
         union all select (to_jsonb(p) - 'updated_at')::text from public.index_progress p
         order by row",
    )
    .fetch_all(pool)
    .await?)
}

pub(crate) async fn count(pool: &PgPool, sql: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

pub(crate) fn hash(seed: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let part = |n: u8| {
        let mut hasher = DefaultHasher::new();
        (n, seed).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    format!("0x{}", (0..4).map(part).collect::<String>())
}

/// A block of one Bitcoin-side operation with one event; `id` and `parent` are index hashes.
pub(crate) fn body(height: u64, id: &str, parent: &str) -> Value {
    json!({
        "block_height": height, "block_hash": hash(&format!("header {id}")), "index_block_hash": id,
        "parent_block_hash": hash(&format!("header {parent}")), "parent_index_block_hash": parent,
        "burn_block_hash": hash("burn"), "burn_block_height": height + 100, "burn_block_time": 1_700_000_000 + height,
        "transactions": [{"txid": hash(&format!("tx {id}")), "tx_index": 0, "status": "success", "raw_result": "0x0703", "raw_tx": "0x00"}],
        "events": [{"txid": hash(&format!("tx {id}")), "event_index": 0, "committed": true, "type": "stx_burn_event",
            "stx_burn_event": {"sender": "SP3SBQ9PZEMBNBAWTR7FRPE3XK0EFW9JWVX4G80S2", "amount": "1"}}],
    })
}

pub(crate) async fn post(ingest: &Ingest, body: &Value) -> Result<Outcome, IngestError> {
    ingest.apply("/new_block", body.to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recording_ends_with_the_expected_chain_and_a_second_replay_changes_nothing() -> Result<()> {
    for (path, expected) in recordings()? {
        let (_database, pool, ingest) = empty_chain().await?;
        let summary = ingest.replay_file(&path, |_| {}).await?;
        assert_eq!(expected["counts"]["blocks_unique"], summary.stored, "{}", path.display());
        assert_chain(&path, &stored(&pool).await?, &expected);
        let before = contents(&pool).await?;
        let again = Ingest::new(pool.clone(), "mainnet").replay_file(&path, |_| {}).await?;
        assert_eq!((again.stored, again.orphaned), (0, 0), "{}", path.display());
        assert!(before == contents(&pool).await?, "{} changed on its second replay", path.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_in_any_order_end_as_the_same_chain() -> Result<()> {
    for (path, expected) in recordings()? {
        let mut posts = Recording::open(&path)?.collect::<Result<Vec<_>, _>>()?;
        shuffle(&mut posts, 7);
        let (_database, pool, ingest) = empty_chain().await?;
        for post in &posts {
            ingest.apply(&post.path, post.payload.text().as_bytes()).await?;
        }
        assert_chain(&path, &stored(&pool).await?, &expected);
        assert_eq!(count(&pool, "select count(*) from snapshots.chain_block where partial").await?, 0);
        let aside = count(&pool, "select count(*) from snapshots.chain_aside").await?;
        assert_eq!(expected["counts"]["orphaned_blocks"], aside, "{}", path.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_every_single_arrival_the_tables_hold_what_the_definition_says() -> Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let mut arriving = blocks(&data.join("recordings/made-regtest-two-branches.ndjson.gz"))?;
    shuffle(&mut arriving, 3);
    let (_database, pool, ingest) = empty_chain().await?;
    for number in 1..=arriving.len() {
        ingest.store(&arriving[number - 1]).await?;
        let expected: Vec<_> = canonical_chain(&arriving[..number]).iter().map(|b| b.index_block_hash.clone()).collect();
        let found: Vec<_> = stored(&pool).await?.into_iter().map(|block| block.index_block_hash).collect();
        assert_eq!(found, expected, "after {number} arrivals");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_lost_comes_back_with_all_its_rows_when_it_grows_past_the_winner() -> Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let arriving = blocks(&data.join("recordings/made-regtest-two-branches.ndjson.gz"))?;
    let (_database, pool, ingest) = empty_chain().await?;
    for block in &arriving[..19] {
        ingest.store(block).await?;
    }
    let first = contents(&pool).await?;
    for block in &arriving[19..] {
        ingest.store(block).await?;
    }
    assert_eq!(count(&pool, "select count(*) from snapshots.chain_block where not canonical").await?, 18);
    let mut tip = arriving[18].clone();
    for height in 19..=31 {
        let id = hash(&format!("grown {height}"));
        let outcome = post(&ingest, &body(height, &id, &tip.index_block_hash)).await?;
        let Outcome::Stored(stored) = outcome else { anyhow::bail!("{outcome:?}") };
        assert_eq!(stored.canonical, height == 31);
        tip.index_block_hash = id;
    }
    let chain = stored(&pool).await?;
    assert_eq!(chain.len(), 32);
    assert_eq!(chain[..19], stored_as(&arriving[..19])[..]);
    let back = contents(&pool).await?;
    let lost = first.iter().filter(|row| !row.contains("last_indexed_block") && !back.contains(row)).count();
    assert_eq!(lost, 0, "rows of the first branch that differ after it came back");
    Ok(())
}

/// What reading back gives of blocks: JSON as the database prints it, and no results.
fn stored_as(blocks: &[Block]) -> Vec<Block> {
    let mut blocks = blocks.to_vec();
    for block in &mut blocks {
        block.transactions.iter_mut().for_each(|tx| tx.raw_result = None);
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_loser_changes_nothing_and_the_same_transaction_ends_on_the_canonical_block() -> Result<()> {
    let (_database, pool, ingest) = empty_chain().await?;
    let (root, left, right, top) = (hash("root"), hash("left"), hash("right"), hash("top"));
    post(&ingest, &body(1, &root, &hash("before"))).await?;
    post(&ingest, &body(2, &left, &root)).await?;
    let before = contents(&pool).await?;
    let mut same = body(2, &right, &root);
    same["transactions"] = body(2, &left, &root)["transactions"].clone();
    same["events"] = body(2, &left, &root)["events"].clone();
    let outcome = post(&ingest, &same).await?;
    assert!(matches!(outcome, Outcome::Stored(ref stored) if !stored.canonical));
    assert_eq!(before, contents(&pool).await?);
    let Outcome::Stored(won) = post(&ingest, &body(3, &top, &right)).await? else { anyhow::bail!("not stored") };
    assert_eq!((won.orphaned, won.adopted), (vec![2], vec![2, 3]));
    let chain = stored(&pool).await?;
    assert_eq!(chain.iter().map(|b| b.index_block_hash.as_str()).collect::<Vec<_>>(), [&root, &right, &top]);
    assert_eq!(chain[1].transactions[0].tx_id, hash(&format!("tx {left}")));
    assert_eq!(chain[1].events.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_two_unconnected_blocks_stands_once_and_ends_on_the_canonical_one() -> Result<()> {
    let (_database, pool, ingest) = empty_chain().await?;
    let id = |name: &str| hash(name);
    let lost = body(2, &id("a2"), &id("root"));
    let mut tip = body(5, &id("b5"), &id("b4"));
    tip["transactions"] = lost["transactions"].clone();
    tip["events"] = lost["events"].clone();
    post(&ingest, &body(1, &id("root"), &id("before"))).await?;
    post(&ingest, &lost).await?;
    post(&ingest, &tip).await?;
    assert_eq!(
        count(
            &pool,
            "select block_height from public.events where tx_id in (select tx_id from public.transactions where block_height = 2)"
        )
        .await?,
        2
    );
    for (height, name, parent) in [(4, "b4", "b3"), (3, "b3", "b2"), (2, "b2", "root")] {
        post(&ingest, &body(height, &id(name), &id(parent))).await?;
    }
    let chain = stored(&pool).await?;
    let ids: Vec<_> = chain.iter().map(|block| block.index_block_hash.clone()).collect();
    assert_eq!(ids, ["root", "b2", "b3", "b4", "b5"].map(id));
    assert_eq!(chain[4].transactions[0].tx_id, hash(&format!("tx {}", id("a2"))));
    assert_eq!(chain.iter().map(|block| (block.transactions.len(), block.events.len())).collect::<Vec<_>>(), [(1, 1); 5]);
    assert_eq!(count(&pool, "select count(*) from snapshots.chain_block where partial").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_genesis_delivered_again_wipes_nothing_and_delivered_first_is_completed() -> Result<()> {
    let (id, parent) = (hash("genesis"), hash("nothing"));
    let full = body(0, &id, &parent);
    let mut empty = full.clone();
    empty["transactions"] = json!([]);
    empty["events"] = json!([]);
    for (first, second) in [(&full, &empty), (&empty, &full)] {
        let (_database, pool, ingest) = empty_chain().await?;
        post(&ingest, first).await?;
        post(&ingest, second).await?;
        assert_eq!(count(&pool, "select count(*) from public.transactions").await?, 1);
        assert_eq!(count(&pool, "select count(*) from public.events").await?, 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nul_characters_unknown_events_and_128_bit_numbers_are_survived() -> Result<()> {
    let (_database, pool, ingest) = empty_chain().await?;
    let id = hash("odd");
    let tx = hash(&format!("tx {id}"));
    let mut odd = body(5, &id, &hash("below"));
    odd["events"] = json!([
        {"txid": tx, "event_index": 1, "committed": false, "type": "comet_event", "comet_event": {"tail": "a\u{0}b"}},
        {"txid": tx, "event_index": 0, "committed": true, "type": "contract_event", "contract_event": {"value": "BIG"}},
    ]);
    let text = odd.to_string().replace("\"BIG\"", "{\"UInt\":340282366920938463463374607431768211455}");
    ingest.apply("/new_block", text.as_bytes()).await?;
    let rows: Vec<(String, String)> =
        sqlx::query_as("select type, data::text from public.events order by event_index").fetch_all(&pool).await?;
    assert_eq!(rows[0].1, r#"{"value": {"UInt": 340282366920938463463374607431768211455}}"#);
    assert_eq!(rows[1].0, "comet_event");
    let whole: Value = serde_json::from_str(&rows[1].1)?;
    assert_eq!((&whole["comet_event"]["tail"], &whole["txid"]), (&json!("ab"), &json!(tx)));
    let chain = stored(&pool).await?;
    assert_eq!(chain[0].events.iter().map(|event| event.committed).collect::<Vec<_>>(), [true, false]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_body_and_an_unknown_path_store_nothing() -> Result<()> {
    let (_database, pool, ingest) = empty_chain().await?;
    let mut stray = body(1, &hash("a"), &hash("b"));
    stray["events"][0]["txid"] = json!(hash("elsewhere"));
    assert!(post(&ingest, &stray).await.expect_err("refused").is_malformed());
    let mut short = body(1, &hash("a"), &hash("b"));
    short["index_block_hash"] = json!("0x12");
    assert!(post(&ingest, &short).await.expect_err("refused").is_malformed());
    assert!(ingest.apply("/new_block", b"{\"block_height\":").await.expect_err("refused").is_malformed());
    assert!(matches!(ingest.apply("/nowhere", b"{}").await, Err(IngestError::UnknownPath(_))));
    assert!(matches!(ingest.apply("/new_burn_block", b"anything").await, Ok(Outcome::Ignored)));
    assert_eq!(count(&pool, "select count(*) from snapshots.chain_block").await?, 0);
    assert!(contents(&pool).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_store_every_block_once() -> Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let path = data.join("recordings/mainnet-13044.ndjson.gz");
    let (_database, pool, _) = empty_chain().await?;
    let writers = (0..3).map(|seed| {
        let (pool, path) = (pool.clone(), path.clone());
        tokio::spawn(async move {
            let mut arriving = blocks(&path)?;
            shuffle(&mut arriving, seed);
            let ingest = Ingest::new(pool, "mainnet");
            for block in &arriving {
                ingest.store(block).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    let expected = recordings()?.into_iter().find(|(name, _)| *name == path).context("not in counts.json")?.1;
    assert_chain(&path, &stored(&pool).await?, &expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_follows_the_contiguous_run_and_never_goes_back() -> Result<()> {
    let (_database, pool, ingest) = empty_chain().await?;
    let id = |height: u64| hash(&format!("block {height}"));
    let mut seen = Vec::new();
    for height in [1, 2, 4, 5, 3, 7] {
        post(&ingest, &body(height, &id(height), &id(height - 1))).await?;
        let row: (i64, i64, i64) = sqlx::query_as(
            "select last_indexed_block, last_contiguous_block, highest_seen_block from index_progress where network = 'mainnet'",
        )
        .fetch_one(&pool)
        .await?;
        seen.push(row);
    }
    assert_eq!(seen, [(1, 1, 1), (2, 2, 2), (4, 2, 4), (5, 2, 5), (5, 5, 5), (7, 5, 7)]);
    Ok(())
}
