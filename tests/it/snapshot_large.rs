//! Ranges with more rows than one chunk holds.

use serde_json::json;
use snapshot::chunk::Heights;
use snapshot::manifest::Manifest;
use snapshot::verify::{self, Subject};

use crate::support::{cut, database, equals_source, growing_site, run, until_counted};

/// COPY text of one chunk, as the format has it.
const MAX_RAW_BYTES: u64 = 128 << 20;

fn parts(manifest: &Manifest) -> Vec<Heights> {
    let events = manifest.chunks.iter().filter(|chunk| chunk.table == "events");
    events.filter_map(|chunk| chunk.heights).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_too_large_for_a_chunk_is_halved_and_stays_so() {
    let site = growing_site(400, 399).await;
    let pool = site.database.pool().await;
    // Some 40 MB of text in each of five blocks, the last four within one quarter of the range.
    let long = "insert into public.events (tx_id, block_height, event_index, type, data)
        select t.tx_id, height, 1000 + n, 'contract_event', jsonb_build_object('x', repeat(md5(n::text || height), 62500))
        from unnest(array[10, 210, 220, 230, 240]) height cross join generate_series(1, 20) n
        cross join lateral (select tx_id from public.transactions where block_height = height limit 1) t";
    let rows = sqlx::query(long).execute(&pool).await.unwrap().rows_affected();
    assert_eq!(rows, 100, "every one of the blocks has a transaction");
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    let halved = parts(&first);
    assert!(halved.len() >= 3, "{halved:?}");
    assert!(first.chunks.iter().all(|chunk| chunk.raw_bytes <= MAX_RAW_BYTES));
    assert!(halved.windows(2).all(|pair| pair[0].to + 1 == pair[1].from), "no height is left out: {halved:?}");
    equals_source(&pool, &first).await;

    // Without the long rows one chunk would do, but splits never move.
    sqlx::query("delete from public.events where event_index >= 1000 and block_height < 240").execute(&pool).await.unwrap();
    until_counted(&pool, "n_tup_del", 80).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    let again = parts(&second);
    assert_eq!(again, halved);
    equals_source(&pool, &second).await;
    service.terminate().await;

    let target = database().await;
    let restored = run(site.client("restore", &site.published(), target.url()).args(["--jobs", "2"])).await.result();
    assert_eq!(restored["proved"], true);
    let report = verify::database(&target.pool().await, &second, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
}
