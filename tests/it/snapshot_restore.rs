//! A published snapshot restores with every stock way of `pg_restore`, and the restored database is the snapshot.

use snapshot::manifest::Manifest;
use snapshot::verify::{self, Subject};

use crate::support::{TestDatabase, database, extract, site_with_chain};

async fn assert_restored(database: &TestDatabase, manifest: &Manifest) {
    let report = verify::database(&database.pool().await, manifest, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
    assert_eq!(report.rows, manifest.tables.values().map(|table| table.rows).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stock_way_to_restore_ends_with_the_same_database() {
    let site = site_with_chain(1_200).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    let archive = extract(&site, &manifest).await;
    let ways: [&[&[&str]]; 4] = [
        &[&["-j8"]],
        &[&[]],
        &[&["--single-transaction"]],
        &[&["--section=pre-data"], &["--section=data", "-j4"], &["--section=post-data", "-j4"]],
    ];
    for way in ways {
        let target = database().await;
        for flags in way {
            archive.pg_restore(target.url(), flags).await;
        }
        assert_restored(&target, &manifest).await;
    }
    let target = database().await;
    archive.script(target.url()).await;
    assert_restored(&target, &manifest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_still_holds_what_the_snapshot_says_and_a_changed_row_is_noticed() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    let pool = site.database.pool().await;
    let report = verify::database(&pool, &manifest, Subject::Source, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);

    sqlx::query(
        "update public.events set type = type || 'x' where id = (select id from public.events where block_height = 3 limit 1)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let report = verify::database(&pool, &manifest, Subject::Source, 2).await.unwrap();
    let failing: Vec<_> = report.checks.iter().filter(|check| !check.holds).collect();
    assert_eq!(failing.len(), 1, "{failing:#?}");
    assert!(failing[0].found.as_ref().unwrap().contains("events-0000000000-"), "{failing:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_with_a_row_too_many_or_another_progress_is_not_proved() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let manifest = service.cut().await;
    let target = database().await;
    extract(&site, &manifest).await.pg_restore(target.url(), &["-j4"]).await;
    let pool = target.pool().await;
    let above = manifest.block_height + 1;
    sqlx::query(
        "insert into public.blocks (height, hash, parent_hash, burn_block_height, timestamp) values ($1, 'a', 'b', 1, 1)",
    )
    .bind(above.cast_signed())
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("update public.index_progress set highest_seen_block = highest_seen_block + 1").execute(&pool).await.unwrap();
    let report = verify::database(&pool, &manifest, Subject::Restored, 2).await.unwrap();
    let failing: Vec<&str> = report.checks.iter().filter(|check| !check.holds).map(|check| check.statement.as_str()).collect();
    assert_eq!(failing.len(), 4, "{failing:?}");
}
