//! kill -9 in every step of the snapshot workflow, after the step's effects and before the ledger knows: the run goes on
//! in the next process, nothing is cut or published twice.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use snapshot::verify::{self, Subject};
use sqlx::PgPool;

use crate::support::{Site, database, extract, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the statement that records the success of `step` wait for an advisory lock that the test holds.
async fn hold_completion(pool: &PgPool, step: &str) {
    let sql = format!(
        "create function public.test_hold() returns trigger language plpgsql as $$ begin
            if new.name = '{step}' and new.state = 'succeeded' then perform pg_advisory_xact_lock(4242); end if; return new; end $$;
         create trigger test_hold before update on snapshots.step for each row execute function public.test_hold()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

/// The waiting statement must not go on by itself once its process is dead.
async fn release(pool: &PgPool) {
    let sql = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted and objid = 4242
               and database = (select oid from pg_database where datname = current_database())";
    sqlx::query(sql).execute(pool).await.unwrap();
    sqlx::raw_sql("drop trigger test_hold on snapshots.step; drop function public.test_hold()").execute(pool).await.unwrap();
}

async fn waiting(pool: &PgPool) -> bool {
    let sql = "select exists (select from pg_locks where locktype = 'advisory' and not granted and objid = 4242
               and database = (select oid from pg_database where datname = current_database()))";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

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
    hold_completion(&pool, step).await;
    let mut holder = pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(4242)").execute(&mut *holder).await.unwrap();
    let run = first.start_run().await;
    wait_until(PATIENCE, "the step has done its work", async || waiting(&pool).await).await;
    first.kill().await;
    let before = objects(&site);
    release(&pool).await;
    sqlx::query("select pg_advisory_unlock(4242)").execute(&mut *holder).await.unwrap();

    let second = site.serve().await;
    let ended = second.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let after = objects(&site);
    for (key, stat) in &before {
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
    a_kill_in_promote_leaves_one_snapshot "promote",
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_two_tables_of_a_range_does_not_cut_the_first_again() {
    let site = site_with_chain(1_000).await;
    let pool = site.database.pool().await;
    let first = site.serve().await;
    // `plan` reads events too, so the table is locked once the plan is made and before its end is recorded.
    hold_completion(&pool, "plan").await;
    let mut gate = pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(4242)").execute(&mut *gate).await.unwrap();
    let run = first.start_run().await;
    wait_until(PATIENCE, "the plan is made", async || waiting(&pool).await).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    sqlx::query("select pg_advisory_unlock(4242)").execute(&mut *gate).await.unwrap();
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
