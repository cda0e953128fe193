//! What must not be snapshotted is refused with a reason, and `latest` stays where it was.

use serde_json::{Value, json};

use crate::support::{Site, site, site_with_chain};

async fn execute(site: &Site, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&site.database.pool().await).await.unwrap();
}

/// Cuts one good snapshot, spoils the database, and checks that the next is refused with these words.
async fn refused_after(spoil: &'static str, words: &[&str]) {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    service.cut().await;
    let before = site.keys();
    let latest = service.get("/snapshots/latest").await.bytes().await.unwrap();
    execute(&site, spoil).await;
    let why = service.cut_refused().await;
    for word in words {
        assert!(why.contains(word), "{why:?} lacks {word:?}");
    }
    assert_eq!(service.get("/snapshots/latest").await.bytes().await.unwrap(), latest);
    assert_eq!(site.keys(), before, "something was published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_refuses_and_names_the_heights() {
    let spoil = "delete from public.events where block_height in (50, 51); delete from public.transactions where block_height in (50, 51);
                 delete from public.blocks where height in (50, 51)";
    refused_after(spoil, &["gaps", "50..=51", "backfill"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_not_canonical_is_a_gap() {
    refused_after("update public.blocks set canonical = false where height = 50", &["gaps", "first 50"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_parent_link_refuses_and_names_the_height() {
    refused_after("update public.blocks set parent_hash = '0xbad' where height = 77", &["broken", "first at height 77"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_column_refuses_and_names_it() {
    refused_after("alter table public.events drop column data", &["public.events.data", "missing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_column_refuses_until_somebody_decides() {
    let spoil = "alter table public.blocks add column note text default 'private'";
    refused_after(spoil, &["public.blocks.note", "--omit-columns"]).await;

    let site = site_with_chain(1_000).await.with_flags(&["--omit-columns", "blocks.note"]);
    execute(&site, spoil).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    assert!(!manifest.shapes[0].columns.contains(&"note".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_do_not_refuse_are_counted() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let before = service.cut().await.audit;
    execute(
        &site,
        "update public.blocks set timestamp = 0 where height in (5, 6);
         update public.transactions set raw_tx = '0x00' where tx_id = (select min(tx_id) from public.transactions where block_height = 9 and raw_tx <> '0x00');
         insert into public.events (tx_id, block_height, event_index, type, data)
            select tx_id, block_height, event_index, type, data from public.events where block_height between 10 and 40 limit 1",
    )
    .await;
    let after = service.cut().await.audit;
    assert_eq!(after.zero_timestamps - before.zero_timestamps, 2);
    assert_eq!(after.placeholder_raw_tx - before.placeholder_raw_tx, 1);
    assert_eq!(after.duplicate_events - before.duplicate_events, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_and_an_unknown_network_are_refused_before_a_run_exists() {
    let empty = site().await;
    let service = empty.serve().await;
    let answer = service.create(&json!({})).await;
    assert_eq!(answer.status(), 409);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("index_progress has no row"), "{problem}");

    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let answer = service.create(&json!({ "network": "testnet" })).await;
    assert_eq!(answer.status(), 422);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("indexes mainnet, not testnet"), "{problem}");
    assert_eq!(service.create(&json!({ "netwrok": "x" })).await.status(), 422);
    assert!(site.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_too_short_says_so() {
    let site = site_with_chain(60).await;
    let why = site.serve().await.cut_refused().await;
    assert!(why.contains("no block is final yet"), "{why}");
    assert!(site.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_of_a_network_is_refused_while_the_first_goes_on() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let pool = site.database.pool().await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let first = service.start_run().await;
    let answer = service.create(&json!({ "network": "mainnet" })).await;
    assert_eq!(answer.status(), 409);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["runId"], json!(first));
    holder.rollback().await.unwrap();
    assert_eq!(service.ended(&first).await["state"], "succeeded");
}
