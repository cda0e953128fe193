//! The next snapshot reads and stores what is new or changed, and is complete all the same.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use snapshot::chunk::Chunk;
use snapshot::key::Key;
use snapshot::manifest::Manifest;

use crate::support::{
    FaultProxy, Site, changed, counted, cut, cut_unpromoted, equals_source, grow, growing_site, names, repair, until_counted,
};

/// The content of a snapshot without what tells it from another of the same rows.
fn content(manifest: &Manifest) -> (Vec<Chunk>, Value, String) {
    let ranges = serde_json::to_value(&manifest.ranges).unwrap();
    (manifest.chunks.clone(), json!([ranges, manifest.audit, manifest.tables]), manifest.checksum.clone())
}

fn object(site: &Site, chunk: &Chunk) -> std::path::PathBuf {
    site.objects().join(Key::Chunk(chunk.sha256.clone()).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grown_chain_costs_its_new_ranges_and_a_filled_tail_is_sealed() {
    let site = growing_site(10_300, 6_299).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse, Value::Null, "there was nothing to take over");
    equals_source(&pool, &first).await;

    grow(&pool, 7_499).await;
    let (second, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!((reuse["reused"].clone(), reuse["ranges"].clone()), (json!(2), json!(4)), "{reuse}");
    let expected = ["blocks", "transactions", "events"]
        .iter()
        .flat_map(|table| [format!("{table}-0000006000-0000006999.dat"), format!("{table}-0000007000-0000007499.dat")])
        .chain(["index_progress.dat".to_owned()])
        .collect();
    assert_eq!(changed(&first, &second), expected);
    equals_source(&pool, &second).await;

    let (whole, reuse) = cut(&service, &pool, json!({ "full": true })).await;
    assert_eq!(reuse, Value::Null);
    assert_eq!(content(&whole), content(&second), "what was taken over is what would have been cut");

    grow(&pool, 10_299).await;
    let (third, _) = cut(&service, &pool, json!({})).await;
    let sealed: Vec<(u64, bool)> = third.ranges.iter().map(|range| (range.heights.from, range.sealed)).collect();
    assert_eq!(sealed, [(0, true), (5_000, true), (10_000, false)]);
    assert_eq!(changed(&second, &third).len(), 7, "the filled range and the new tail of three tables, and the progress");
    equals_source(&pool, &third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_range_whose_content_or_objects_changed_is_cut_again() {
    let site = growing_site(6_500, 6_499).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;

    // A missing block was indexed anew: another hash, and its child names it.
    repair(
        &pool,
        "n_tup_upd",
        &[
            "update public.blocks set hash = '0x' || md5('a') || md5('b') where height = 5100",
            "update public.blocks set parent_hash = '0x' || md5('a') || md5('b') where height = 5101",
        ],
    )
    .await;
    let (second, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!((reuse["reused"].clone(), reuse["decidedBy"].clone()), (json!(2), json!("block hashes and row counts")));
    assert_eq!(changed(&first, &second), names(["blocks-0000005000-0000005999.dat"]));
    equals_source(&pool, &second).await;

    let gone =
        "delete from public.events where id = (select id from public.events where block_height between 100 and 900 limit 1)";
    repair(&pool, "n_tup_del", &[gone]).await;
    let (third, _) = cut(&service, &pool, json!({})).await;
    assert_eq!(changed(&second, &third), names(["events-0000000000-0000004999.dat"]));
    equals_source(&pool, &third).await;

    let lost = third.chunks.iter().find(|chunk| chunk.table == "transactions").unwrap();
    std::fs::remove_file(object(&site, lost)).unwrap();
    let (fourth, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse["reused"], json!(2), "{reuse}");
    assert_eq!(content(&fourth), content(&third));
    assert!(object(&site, lost).is_file(), "it was stored again");

    let manifest = site.objects().join(Key::Manifest(fourth.path()).to_string());
    let mut altered = std::fs::read(&manifest).unwrap();
    altered.push(b' ');
    std::fs::write(&manifest, altered).unwrap();
    let (fifth, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse, Value::Null, "nothing is taken over from an altered manifest");
    assert_eq!(content(&fifth), content(&fourth));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_where_nothing_was_written_is_not_looked_through() {
    let site = growing_site(5_400, 5_299).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let inserted = counted(&pool, "n_tup_ins").await;
    cut(&service, &pool, json!({})).await;
    grow(&pool, 5_399).await;
    let above: i64 = sqlx::query_scalar(
        "select (select count(*) from public.blocks where height > 5299) + (select count(*) from public.transactions where block_height > 5299)
              + (select count(*) from public.events where block_height > 5299)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    until_counted(&pool, "n_tup_ins", inserted + above).await;
    let (second, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse["decidedBy"], json!("write counters"), "{reuse}");
    equals_source(&pool, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_that_was_never_promoted_has_cut_is_not_read_again() {
    let site = growing_site(6_500, 5_499).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    cut(&service, &pool, json!({})).await;
    grow(&pool, 6_499).await;
    let unpromoted = cut_unpromoted(&service, &pool).await;
    let (third, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!((&reuse["base"], &reuse["reused"], &reuse["ranges"]), (&json!(unpromoted), &json!(3), &json!(3)), "{reuse}");
    equals_source(&pool, &third).await;

    let disproved = cut_unpromoted(&service, &pool).await;
    let sql = "update snapshots.snapshot set drill = '{\"proved\": false}' where id = $1";
    sqlx::query(sql).bind(&disproved).execute(&pool).await.unwrap();
    let (_, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse, Value::Null, "nothing is taken over from, or from before, one that does not restore");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_again_and_found_unchanged_is_not_sent_again() {
    let site = growing_site(1_500, 1_499).await;
    let pool = site.database.pool().await;
    let sent = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&sent);
    let bucket = FaultProxy::start(site.bucket.endpoint(), move |asked| {
        if asked.method == "PUT" {
            noted.lock().unwrap().insert(asked.path.clone());
        }
        None
    })
    .await;
    let service = site.serve_with(&[("S3_ENDPOINT", &bucket.url)]).await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    let was_sent = |chunk: &&Chunk| {
        let key = Key::Chunk(chunk.sha256.clone()).to_string();
        sent.lock().unwrap().iter().any(|path| path.ends_with(&key))
    };
    let ranges =
        |manifest: &Manifest| manifest.chunks.iter().filter(|chunk| chunk.heights.is_some()).cloned().collect::<Vec<_>>();
    assert!(ranges(&first).iter().all(|chunk| was_sent(&chunk)));

    sent.lock().unwrap().clear();
    let gone = "delete from public.events where id = (select id from public.events where block_height = 700 limit 1)";
    repair(&pool, "n_tup_del", &[gone]).await;
    let (second, _) = cut(&service, &pool, json!({ "full": true })).await;
    let again = ranges(&second);
    let again: Vec<String> = again.iter().filter(was_sent).map(Chunk::file_name).collect();
    assert_eq!(again, ["events-0000000000-0000000999.dat"], "only what changed");
    equals_source(&pool, &second).await;

    // One that is missing is sent, of course.
    sent.lock().unwrap().clear();
    let lost = ranges(&second).pop().unwrap();
    std::fs::remove_file(object(&site, &lost)).unwrap();
    cut(&service, &pool, json!({})).await;
    assert!(was_sent(&&lost) && object(&site, &lost).is_file());
}
