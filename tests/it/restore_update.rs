//! `snapshots update`: a restored database becomes the newest snapshot by what it lacks.

use std::process::Stdio;
use std::time::Duration;

use snapshot::key::Key;
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
async fn rows_that_point_across_heights_and_rows_that_moved_are_brought_along() {
    let site = site_with_chain(3_000).await;
    let source = site.database.pool().await;
    let change = async |sql: &'static str| sqlx::raw_sql(sql).execute(&source).await.unwrap().rows_affected();
    // A transaction that was mined again keeps its first height; its event stands at a height that nothing else happens to.
    let mined_again = "update public.events set tx_id = (select min(tx_id) from public.transactions where block_height = 5)
                       where id = (select min(id::text)::uuid from public.events where block_height = 1500)";
    assert_eq!(change(mined_again).await, 1);
    let old = cut(&site, "25").await;
    let target = database().await;
    let pool = target.pool().await;
    run(&mut site.client("restore", &site.published(), target.url())).await.result();

    // Repairs move rows up and down, and take one away whose block another transaction has then.
    for repair in [
        "update public.events set type = type || '_repaired' where id = (select min(id::text)::uuid from public.events where block_height = 6)",
        "update public.events set block_height = 7 where id = (select min(id::text)::uuid from public.events where block_height = 2100)",
        "update public.events set block_height = 2101 where id = (select min(id::text)::uuid from public.events where block_height = 8)",
        "update public.transactions set block_height = 2102 where tx_id = (select min(tx_id) from public.transactions where block_height = 9)",
        "update public.transactions set block_height = 10 where tx_id = (select min(tx_id) from public.transactions where block_height = 2103)",
        "delete from public.events where tx_id = (select min(tx_id) from public.transactions where block_height = 11)",
        "delete from public.transactions where tx_id = (select min(tx_id) from public.transactions where block_height = 11)",
    ] {
        assert!(change(repair).await > 0, "{repair}");
    }
    let new = cut(&site, "6").await;
    assert_ne!(old.block_height, new.block_height);
    let untouched = "select xmin::text from public.events where block_height = 20 order by id limit 1";
    let before: String = sqlx::query_scalar(untouched).fetch_one(&pool).await.unwrap();
    let result = run(site.client("update", &site.published(), target.url()).arg("--deep")).await.result();
    let lacking = new.chunks.iter().filter(|chunk| !old.chunks.iter().any(|known| known.content_sha256 == chunk.content_sha256));
    assert_eq!(result["difference"]["chunks"].as_u64().unwrap() as usize, lacking.count(), "chunks that are there were fetched");
    let report = verify::database(&pool, &new, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
    let after: String = sqlx::query_scalar(untouched).fetch_one(&pool).await.unwrap();
    assert_eq!(before, after, "a row that did not change was written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_gained_is_made_and_what_it_changed_is_refused() {
    let site = site_with_chain(1_000).await;
    let old = cut(&site, "8").await;
    let target = database().await;
    let pool = target.pool().await;
    run(&mut site.client("restore", &site.published(), target.url())).await.result();
    let source = site.database.pool().await;
    let migration = "create table public.invoices (id bigint primary key, tx_id text references public.transactions (tx_id));
                     create index events_by_both on public.events (block_height, type);
                     insert into public.kysely_migration (name, timestamp) values ('0099_invoices', '2026-01-01T00:00:00.000Z')";
    sqlx::raw_sql(migration).execute(&source).await.unwrap();
    cut(&site, "6").await;
    std::fs::remove_file(site.objects().join(Key::Chunk(old.schema.sha256.clone()).to_string())).unwrap();
    let update = async |args: &[&str]| run(site.client("update", &site.published(), target.url()).args(args)).await;
    let planned = update(&["--dry-run"]).await.result();
    let gained = planned["difference"]["definitions"].as_array().unwrap();
    assert!(gained.contains(&"TABLE invoices".into()) && gained.contains(&"INDEX events_by_both".into()), "{planned}");
    update(&["--deep"]).await.result();
    let definitions = async |pool: &sqlx::PgPool| -> Vec<String> {
        sqlx::query_scalar(
            "select indexdef from pg_indexes where schemaname = 'public'
             union all select conrelid::regclass || pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace
             union all select name from public.kysely_migration order by 1",
        )
        .fetch_all(pool)
        .await
        .unwrap()
    };
    assert_eq!(definitions(&pool).await, definitions(&source).await);

    sqlx::raw_sql("alter table public.invoices add column paid boolean").execute(&source).await.unwrap();
    cut(&site, "5").await;
    update(&[]).await.error_with(6, &["TABLE invoices is not that of", "empty database"]);
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
    let half = run(site.client("verify", &site.published(), target.url()).arg("--database")).await;
    half.error_with(5, &["has come to its end", "run `snapshots update` again"]);
    run(&mut site.client("update", &site.published(), target.url())).await.result();
    let report = verify::database(&pool, &new, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
}
