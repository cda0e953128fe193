//! kill -9 in every step of the snapshot workflow, after the step's effects and before the ledger knows: the run goes on
//! in the next process, nothing is cut or published twice.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use snapshot::verify::{self, Subject};

use crate::support::{Hold, Site, database, extract, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Inode and time of every object but the pointers: an object that is written again gets new ones.
fn objects(site: &Site) -> BTreeMap<String, (u64, i64, i64)> {
    let stat = |key: String| {
        let meta = std::fs::metadata(site.bucket.root().join(&key)).unwrap();
        (key, (meta.ino(), meta.mtime(), meta.mtime_nsec()))
    };
    site.keys().into_iter().map(stat).collect()
}

async fn killed_in(step: &str) {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let first = site.serve().await;
    let hold = Hold::on_success(&pool, step).await;
    let run = first.start_run().await;
    hold.reached().await;
    first.kill().await;
    let before = objects(&site);
    // The waiting statement must not go on by itself now that its process is dead.
    hold.abandon().await;

    let second = site.serve().await;
    let ended = second.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let after = objects(&site);
    // What tells how things stand is written again and again.
    for (key, stat) in before.iter().filter(|(key, _)| !key.ends_with("/status.json")) {
        assert_eq!(after.get(key), Some(stat), "{key} was written again after the kill in `{step}`");
    }
    let manifests: Vec<&String> = after.keys().filter(|key| key.ends_with("manifest.json")).collect();
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    let bytes = second.get("/snapshots/latest").await.bytes().await.unwrap();
    let manifest = snapshot::manifest::Manifest::from_bytes(&bytes).unwrap();
    let target = database().await;
    extract(&site, &manifest).await.pg_restore(target.url(), &["-j4"]).await;
    let report = verify::database(&target.pool().await, &manifest, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
}

macro_rules! killed_in_each {
    ($($name:ident $step:literal),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                killed_in($step).await;
            }
        )+

        #[test]
        fn every_step_of_the_workflow_is_killed_once() {
            let tested = [$($step),+];
            assert_eq!(workflows::snapshot::workflow().step_names(), tested);
        }
    };
}

killed_in_each! {
    a_kill_in_plan_leaves_one_snapshot "plan",
    a_kill_in_dump_leaves_one_snapshot "dump",
    a_kill_in_compress_leaves_one_snapshot "compress",
    a_kill_in_checksum_leaves_one_snapshot "checksum",
    a_kill_in_upload_leaves_one_snapshot "upload",
    a_kill_in_publish_leaves_one_snapshot "publish",
    a_kill_in_drill_leaves_one_snapshot "drill",
    a_kill_in_promote_leaves_one_snapshot "promote",
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_two_tables_of_a_range_does_not_cut_the_first_again() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let first = site.serve().await;
    // `plan` reads events too, so the table is locked once the plan is made and before its end is recorded.
    let hold = Hold::on_success(&pool, "plan").await;
    let run = first.start_run().await;
    hold.reached().await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    hold.release().await;
    let blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'copy (select%\"events\"%'
                   and datname = current_database()";
    wait_until(PATIENCE, "cutting waits for events", async || {
        let waiting: i64 = sqlx::query_scalar(blocked).fetch_one(&pool).await.unwrap();
        waiting > 0
    })
    .await;
    first.kill().await;
    let before = objects(&site);
    assert!(!before.is_empty(), "blocks and transactions were stored");
    holder.rollback().await.unwrap();

    let second = site.serve().await;
    let ended = second.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let after = objects(&site);
    assert!(before.iter().all(|(key, stat)| after.get(key) == Some(stat)));
}
