//! What a look at counts and hashes cannot see in old history: scrubbing finds it, the next snapshot cuts it anew. And history
//! that is compressed again, and what differs between snapshots.

use serde_json::{Value, json};
use snapshot::chunk::Chunk;
use snapshot::key::Key;
use snapshot::manifest::Manifest;
use sqlx::PgPool;

use crate::support::{Hold, Site, changed, cut, cut_unpromoted, equals_source, growing_site, names, repair};

/// Lines that scrubbing wrote about differences.
async fn alarms(pool: &PgPool) -> Vec<String> {
    let sql = "select data ->> 'chunk' || ': ' || (data ->> 'problem') from snapshots.event
               where kind = 'scrub.mismatch' and level = 'error' order by id";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

fn object(site: &Site, chunk: &Chunk) -> std::path::PathBuf {
    site.objects().join(Key::Chunk(chunk.sha256.clone()).to_string())
}

fn chunk<'a>(manifest: &'a Manifest, name: &str) -> &'a Chunk {
    manifest.chunks.iter().find(|chunk| chunk.file_name() == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repaired_old_block_changes_exactly_its_chunk_once_scrubbing_has_seen_it() {
    let site = growing_site(5_100, 5_099).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    service.complete("scrub", &json!({})).await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    service.complete("scrub", &json!({ "percent": 100 })).await;
    assert_eq!(alarms(&pool).await, Vec::<String>::new());

    let payload = "update public.events set data = data || '{\"repaired\": true}' where id = (select id from public.events where block_height between 700 and 900 limit 1)";
    repair(&pool, "n_tup_upd", &[payload]).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    assert_eq!(changed(&first, &second), names([]), "counts and hashes are what they were");
    service.complete("scrub", &json!({ "percent": 100 })).await;
    let events = "events-0000000000-0000004999.dat";
    let found = alarms(&pool).await;
    assert!(found.len() == 1 && found[0].starts_with(&format!("{events}: ")), "{found:?}");
    let (third, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse["reused"], json!(1), "{reuse}");
    assert_eq!(changed(&second, &third), names([events]));
    equals_source(&pool, &third).await;

    let (fourth, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse["reused"], json!(2), "the mark is gone: {reuse}");
    let difference: Value = service.json(&format!("/snapshots/{}/diff?from={}", fourth.snapshot_id, first.snapshot_id)).await;
    assert_eq!((&difference["chunksAdded"], &difference["chunksRemoved"]), (&json!(1), &json!(1)), "{difference:#}");
    assert_eq!(difference["heights"], json!([{ "from": 0, "to": 4_999 }]));
    assert_eq!(difference["bytesAdded"], json!(chunk(&fourth, events).bytes));
    assert_eq!(difference["to"]["sequence"], json!(4));
    let same: Value = service.json(&format!("/snapshots/{0}/diff?from={0}", fourth.snapshot_id)).await;
    assert_eq!((&same["chunksAdded"], &same["heights"]), (&json!(0), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_object_is_found_replaced_and_history_shrinks_with_the_same_rows() {
    let site = growing_site(5_100, 5_099).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;

    let name = "transactions-0000000000-0000004999.dat";
    let path = object(&site, chunk(&first, name));
    let good = std::fs::read(&path).unwrap();
    let mut rotten = good.clone();
    rotten[100] ^= 1;
    std::fs::write(&path, rotten).unwrap();
    service.complete("scrub", &json!({ "percent": 100 })).await;
    let found = alarms(&pool).await;
    assert!(found.len() == 1 && found[0].starts_with(name), "{found:?}");
    assert!(!path.exists(), "it stands in the way of the good one");
    let (second, _) = cut(&service, &pool, json!({})).await;
    assert_eq!(changed(&first, &second), names([]));
    assert_eq!(std::fs::read(&path).unwrap(), good);

    service.complete("reseal", &json!({ "chunks": 1 })).await;
    service.complete("reseal", &json!({})).await;
    service.complete("reseal", &json!({})).await;
    let rows: i64 = sqlx::query_scalar("select count(*) from snapshots.resealed").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 3, "each sealed chunk once");
    let (third, _) = cut(&service, &pool, json!({})).await;
    for chunk in third.chunks.iter().filter(|chunk| chunk.sealed) {
        let before = second.chunks.iter().find(|old| old.file_name() == chunk.file_name()).unwrap();
        assert_eq!((&before.content_sha256, before.raw_bytes), (&chunk.content_sha256, chunk.raw_bytes));
        assert!(chunk.bytes < before.bytes, "{} did not shrink", chunk.file_name());
        assert_eq!(std::fs::metadata(object(&site, chunk)).unwrap().len(), chunk.bytes);
    }
    equals_source(&pool, &third).await;
    let (fourth, _) = cut(&service, &pool, json!({ "full": true })).await;
    assert_eq!(fourth.checksum, third.checksum, "cut anew, it still refers to the smaller objects");
    let smaller = object(&site, fourth.chunks.iter().find(|chunk| chunk.sealed).unwrap());
    std::fs::remove_file(smaller).unwrap();
    let (fifth, _) = cut(&service, &pool, json!({ "full": true })).await;
    assert_eq!(changed(&second, &fifth).len(), 2, "a smaller object that is lost is not referred to");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_goes_once_readers_are_sent_to_what_was_cut_anew_and_one_made_meanwhile_stays() {
    let site = growing_site(5_100, 5_099).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    cut(&service, &pool, json!({})).await;
    let mark = async |low: i64, high: i64| {
        let sql = "insert into snapshots.dirty_range (network, low, high, reason) values ('mainnet', $1, $2, 'a scrub')
                   on conflict (network, low, high) do update set marked_at = now()";
        sqlx::query(sql).bind(low).bind(high).execute(&pool).await.unwrap();
    };
    let shown = async || {
        let found = service.json("/status").await["snapshots"][0].clone();
        (found["state"].clone(), found["changedRanges"].clone())
    };
    mark(0, 4_999).await;
    cut_unpromoted(&service, &pool).await;
    assert_eq!(shown().await, (json!("failed-audit"), json!(1)), "`latest` still has what was found wrong");

    let hold = Hold::on_success(&pool, "publish").await;
    let run = service.start_run().await;
    hold.reached().await;
    mark(5_000, 5_099).await;
    hold.release().await;
    assert_eq!(service.ended(&run).await["state"], "succeeded");
    assert_eq!(shown().await, (json!("failed-audit"), json!(1)), "the first mark is gone, the second was made since");
    let (_, reuse) = cut(&service, &pool, json!({})).await;
    assert_eq!(reuse["reused"], json!(1), "{reuse}");
    assert_eq!(shown().await, (json!("fresh"), json!(0)));
}
