//! Synthetic chains in a database: loaded by COPY, and ingested from their recording, with the same result.

use chain::synthetic::{LoadReport, Profile, Spec, SyntheticError, blocks, load, write_recording};
use sqlx::PgPool;

use crate::support;

fn spec(blocks: u64, profile: Profile) -> Spec {
    Spec { blocks, seed: 11, profile, network: "mainnet".to_owned() }
}

/// Everything that must be equal whichever way a chain came in; ids and times of storing aside.
const CONTENT: [&str; 4] = [
    "select md5(string_agg(t::text, '' order by height)) from (select height, hash, parent_hash, burn_block_height, timestamp, canonical from blocks) t",
    "select md5(string_agg(t::text, '' order by tx_id)) from
         (select tx_id, block_height, tx_index, type, sender, status, contract_id, function_name, raw_tx from transactions) t",
    "select md5(string_agg(t::text, '' order by block_height, event_index)) from (select block_height, tx_id, event_index, type, data from events) t",
    "select md5(string_agg(t::text, '' order by height)) from
         (select height, hash, index_block_hash, parent_index_block_hash, parent_hash, burn_block_hash, transaction_count, event_count
          from snapshots.chain_block where canonical) t",
];

async fn content(pool: &PgPool) -> Vec<String> {
    let mut digests = vec![];
    for sql in CONTENT {
        digests.push(sqlx::query_scalar(sql).fetch_one(pool).await.unwrap());
    }
    let progress =
        "select concat_ws('|', network, last_indexed_block, last_contiguous_block, highest_seen_block) from index_progress";
    digests.push(sqlx::query_scalar(progress).fetch_one(pool).await.unwrap());
    digests
}

async fn ready(database: &support::TestDatabase) -> PgPool {
    let pool = database.pool().await;
    chain::migrate(&pool).await.unwrap();
    pool
}

#[tokio::test]
async fn loading_and_ingesting_the_recording_end_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    for (name, spec) in [("n.ndjson.gz", spec(260, Profile::Nakamoto)), ("a.ndjson.gz", spec(201, Profile::Anchored))] {
        let (loaded, ingested) = (support::database().await, support::database().await);
        let (loaded, ingested) = (ready(&loaded).await, ready(&ingested).await);
        load(&loaded, &spec, |_| ()).await.unwrap();
        let path = folder.path().join(name);
        let expected = write_recording(&spec, &path).unwrap();
        let ingest = chain::Ingest::new(ingested.clone(), "mainnet");
        for post in chain::recording::Recording::open(&path).unwrap() {
            let post = post.unwrap();
            ingest.apply(&post.path, post.payload.text().as_bytes()).await.unwrap();
        }
        assert_eq!(content(&loaded).await, content(&ingested).await, "{name}");
        let kept: i64 = sqlx::query_scalar("select count(*) from snapshots.chain_block").fetch_one(&ingested).await.unwrap();
        assert_eq!(kept.unsigned_abs(), expected.counts.blocks_unique);
    }
}

#[tokio::test]
async fn loading_stores_every_row_and_tells_how_far_it_is() {
    let database = support::database().await;
    let pool = ready(&database).await;
    let spec = spec(4_100, Profile::Quiet);
    let mut heard = vec![];
    let report = load(&pool, &spec, |blocks| heard.push(blocks)).await.unwrap();
    assert_eq!(heard, [4_000, 4_100]);
    let (mut transactions, mut events) = (0, 0);
    for block in blocks(&spec) {
        transactions += block.transactions.len() as u64;
        events += block.events.len() as u64;
    }
    assert_eq!(report, LoadReport { blocks: 4_100, transactions, events, bytes: report.bytes });
    let counted: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from blocks), (select count(*) from transactions), (select count(*) from events)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((counted.0.unsigned_abs(), counted.1.unsigned_abs(), counted.2.unsigned_abs()), (4_100, transactions, events));
}

#[tokio::test]
async fn two_loads_are_identical_down_to_ids_and_times() {
    let mut found = vec![];
    for _ in 0..2 {
        let database = support::database().await;
        let pool = ready(&database).await;
        load(&pool, &spec(150, Profile::Nakamoto), |_| ()).await.unwrap();
        let all: String = sqlx::query_scalar(
            "select md5((select string_agg(e::text, '' order by block_height, event_index) from events e)
                 || (select string_agg(t::text, '' order by tx_id) from transactions t)
                 || (select string_agg(b::text, '' order by height) from blocks b)
                 || (select string_agg(p::text, '') from index_progress p))",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let odd: i64 = sqlx::query_scalar("select count(*) from events where id::text !~ '^.{14}4.{4}[89ab]'")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(odd, 0, "ids look like uuid version 4");
        found.push(all);
    }
    assert_eq!(found[0], found[1]);
}

#[tokio::test]
async fn the_genuine_columns_of_later_versions_are_filled() {
    let database = support::database().await;
    let pool = ready(&database).await;
    for sql in [
        "alter table transactions add function_args jsonb, add raw_result text",
        "alter table blocks add burn_block_hash text, add index_block_hash text, add note text",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    load(&pool, &spec(20, Profile::Nakamoto), |_| ()).await.unwrap();
    let empty: i64 = sqlx::query_scalar(
        "select (select count(*) from transactions where raw_result is null or (function_args is null) = (type = 'contract_call'))
              + (select count(*) from blocks where burn_block_hash is null or index_block_hash is null or note is not null)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(empty, 0);
}

#[tokio::test]
async fn a_database_with_blocks_without_tables_or_with_unknown_columns_is_refused() {
    let database = support::database().await;
    let pool = database.pool().await;
    let refused = async |spec: &Spec| load(&pool, spec, |_| ()).await.unwrap_err();
    let spec = spec(5, Profile::Quiet);
    let error = refused(&spec).await.to_string();
    assert_eq!(error, "table public.blocks lacks column height: run `snapshots migrate` on this database first");
    chain::migrate(&pool).await.unwrap();
    sqlx::query("alter table events add shard integer not null").execute(&pool).await.unwrap();
    assert!(matches!(refused(&spec).await, SyntheticError::UnknownColumn { column, .. } if column == "shard"));
    sqlx::query("alter table events drop shard").execute(&pool).await.unwrap();
    load(&pool, &spec, |_| ()).await.unwrap();
    assert!(matches!(refused(&spec).await, SyntheticError::NotEmpty { blocks: 5 }));
}
