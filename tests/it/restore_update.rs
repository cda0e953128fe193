//! `snapshots update`: a restored database becomes the newest snapshot by what it lacks.

use std::process::Stdio;
use std::time::Duration;

use snapshot::manifest::Manifest;
use snapshot::verify::{self, Subject};

use crate::support::{Site, database, run, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

async fn cut(site: &Site, confirmations: &str) -> Manifest {
    let mut command = site.command();
    command.args(["serve", "--json", "--listen", "127.0.0.1:0", "--confirmations", confirmations]).stdout(Stdio::piped());
    let service = crate::support::ServiceProcess::start(command).await;
    let manifest = service.cut().await;
    service.terminate().await;
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_becomes_the_newest_snapshot_by_the_chunks_it_lacks() {
    let site = site_with_chain(3_000).await;
    let old = cut(&site, "25").await;
    let target = database().await;
    let pool = target.pool().await;
    run(&mut site.client("restore", &site.published(), target.url())).await.result();
    // An old block is repaired at the source, and the chain has grown.
    let source = site.database.pool().await;
    let repair = "update public.events set type = type || '_repaired' where id = (select id from public.events where block_height = 5 limit 1)";
    sqlx::raw_sql(repair).execute(&source).await.unwrap();
    let new = cut(&site, "6").await;
    assert!(new.block_height > old.block_height + 20, "{} {}", new.block_height, old.block_height);

    let update = async |args: &[&str]| run(site.client("update", &site.published(), target.url()).args(args)).await;
    let planned = update(&["--dry-run"]).await.result();
    let lacking = new.chunks.iter().filter(|chunk| !old.chunks.iter().any(|known| known.content_sha256 == chunk.content_sha256));
    let ranges = planned["difference"]["ranges"].as_array().unwrap();
    assert!(ranges.len() >= 2 && ranges[0]["from"] == 0, "{planned}");
    assert!(planned["difference"]["chunks"].as_u64().unwrap() as usize >= lacking.clone().count());
    assert!((planned["difference"]["chunks"].as_u64().unwrap() as usize) < new.chunks.len(), "everything is fetched");
    let untouched = verify::database(&pool, &old, Subject::Restored, 2).await.unwrap();
    assert!(untouched.proved(), "a dry run changed something");

    let result = update(&["--deep"]).await.result();
    assert_eq!(
        result["outcome"]["report"]["checks"].as_array().unwrap().iter().filter(|check| check["holds"] == false).count(),
        0
    );
    let report = verify::database(&pool, &new, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
    assert_eq!(update(&[]).await.result()["difference"]["chunks"], 0, "a second update has nothing to do");
    run(site.client("update", &site.published(), target.url()).args(["--id", &old.snapshot_id]))
        .await
        .error_with(6, &["newer than"]);

    sqlx::query("insert into public.blocks (height, hash, parent_hash, burn_block_height, timestamp) values ($1, 'a', $2, 1, 1)")
        .bind(new.block_height.cast_signed() + 1)
        .bind(&new.block_hash)
        .execute(&pool)
        .await
        .unwrap();
    update(&[]).await.error_with(6, &["is not", "indexer"]);
    let stranger = database().await;
    run(&mut site.client("update", &site.published(), stranger.url())).await.error_with(6, &["not made by `snapshots restore`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_was_killed_is_brought_to_its_end_by_the_same_command() {
    let site = site_with_chain(3_000).await;
    let old = cut(&site, "25").await;
    let target = database().await;
    let pool = target.pool().await;
    run(&mut site.client("restore", &site.published(), target.url())).await.result();
    let new = cut(&site, "6").await;
    let mut holder = pool.begin().await.unwrap();
    // The update deletes the rows of the range that grew, and cannot take their chunk off the list.
    let listed = "select from snapshots_restore.chunk where table_name = 'events' and from_height = (select max(from_height) from snapshots_restore.chunk) for update";
    sqlx::raw_sql(listed).execute(&mut *holder).await.unwrap();
    let mut command = site.client("update", &site.published(), target.url());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(PATIENCE, "the update waits", async || {
        let sql = "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
        sqlx::query_scalar::<_, bool>(sql).fetch_one(&pool).await.unwrap()
    })
    .await;
    child.kill().await.unwrap();
    holder.rollback().await.unwrap();
    assert_ne!(old.block_height, new.block_height);
    run(&mut site.client("restore", &site.published(), target.url())).await.error_with(6, &["unfinished", "snapshots update"]);
    run(&mut site.client("update", &site.published(), target.url())).await.result();
    let report = verify::database(&pool, &new, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
}
