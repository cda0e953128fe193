//! A part of a snapshot: some heights, some tables; and what can be checked afterwards.

use crate::support::{database, published, run, site_with_chain};

#[tokio::test(flavor = "multi_thread")]
async fn heights_and_tables_can_be_chosen_and_the_rest_is_left_out() {
    let (site, manifest) = published(2_200).await;
    let source = site.database.pool().await;
    let rows = async |pool: &sqlx::PgPool| -> Vec<(String, i64)> {
        sqlx::query_as(
            "select md5(string_agg(t::text, ',' order by tx_id)), count(*) from public.transactions t where block_height between 500 and 1500
             union all select md5(string_agg(e::text, ',' order by id)), count(*) from public.events e where block_height between 500 and 1500",
        )
        .fetch_all(pool)
        .await
        .unwrap()
    };

    let target = database().await;
    let result = run(site.client("restore", &site.published(), target.url()).args(["--heights", "500..1500"])).await.result();
    assert_eq!((&result["proved"], &result["blockHeight"]), (&true.into(), &1_500.into()));
    let pool = target.pool().await;
    assert_eq!(rows(&pool).await, rows(&source).await);
    let blocks: (i64, i64, i64, i64) = sqlx::query_as(
        "select min(height), max(height), count(*), (select last_contiguous_block from public.index_progress) from public.blocks",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(blocks, (500, 1_500, 1_001, 1_500));
    let other: i64 = sqlx::query_scalar("select count(*) from public.events where block_height not between 500 and 1500")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(other, 0);
    let checked = run(site.client("verify", &site.published(), target.url()).arg("--database")).await;
    checked.error_with(5, &["transactions has", "not so"]);

    let target = database().await;
    let result = run(site.client("restore", &site.published(), target.url()).args(["--tables", "events"])).await.result();
    assert_eq!(result["proved"], true);
    let skipped = result["outcome"]["skippedDefinitions"].as_array().unwrap();
    assert_eq!(skipped.len(), 2, "foreign keys of events: {skipped:?}");
    let counts: (i64, i64) = sqlx::query_as("select (select count(*) from public.events), (select count(*) from public.blocks)")
        .fetch_one(&target.pool().await)
        .await
        .unwrap();
    assert_eq!(counts, (manifest.tables["events"].rows.cast_signed(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn heights_can_be_chosen_where_an_event_stands_at_another_height_than_its_transaction() {
    let site = site_with_chain(1_600).await;
    let source = site.database.pool().await;
    let mined_again = "update public.events set tx_id = (select tx_id from public.transactions where block_height = 40 limit 1)
                       where id = (select id from public.events where block_height = 600 limit 1)";
    sqlx::raw_sql(mined_again).execute(&source).await.unwrap();
    let service = site.serve().await;
    service.cut().await;
    service.terminate().await;
    let target = database().await;
    let result = run(site.client("restore", &site.published(), target.url()).args(["--heights", "500..1500"])).await.result();
    assert_eq!(result["proved"], true);
    let skipped = &result["outcome"]["skippedDefinitions"];
    assert!(skipped.as_array().unwrap().len() == 1 && skipped[0].as_str().unwrap().contains("events_tx_id_fkey"), "{skipped}");
    let pool = target.pool().await;
    let keys: Vec<(String, bool)> =
        sqlx::query_as("select conname::text, convalidated from pg_constraint where contype = 'f' and conrelid = 'public.events'::regclass order by 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(keys, [("events_block_height_fkey".to_owned(), true), ("events_tx_id_fkey".to_owned(), false)]);
    let whole = database().await;
    let result = run(&mut site.client("restore", &site.published(), whole.url())).await.result();
    assert_eq!(result["outcome"]["skippedDefinitions"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_judges_what_is_published_and_what_was_restored() {
    let (site, manifest) = published(1_000).await;
    let target = database().await;
    run(&mut site.client("restore", &site.published(), target.url())).await.result();
    let pool = target.pool().await;
    let verify = async |args: &[&str]| run(site.client("verify", &site.published(), target.url()).args(args)).await;
    for args in [&[][..], &["--deep"], &["--database"], &["--database", "--deep"]] {
        assert_eq!(verify(args).await.result()["proved"], true, "{args:?}");
    }
    // The manifest that the restore left in the database is enough.
    let mut alone = crate::support::bare_command(&["verify", "--json", "--database", "--deep"]);
    alone.env("DATABASE_URL", target.url()).env("SNAPSHOTS_DATA_DIR", site.dir.path());
    assert_eq!(run(&mut alone).await.result()["blockHeight"], manifest.block_height);

    sqlx::raw_sql("update public.events set type = type || 'x' where id = (select min(id::text)::uuid from public.events)")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(verify(&["--database"]).await.result()["proved"], true, "counts cannot see a changed value");
    verify(&["--database", "--deep"]).await.error_with(5, &["events equal the snapshot's"]);
    sqlx::raw_sql("update public.blocks set parent_hash = 'x' where height = 40").execute(&pool).await.unwrap();
    verify(&["--database"]).await.error_with(5, &["names the one below"]);
    sqlx::raw_sql("alter table public.events drop column data").execute(&pool).await.unwrap();
    verify(&["--database"]).await.error_with(5, &["column public.events.data is missing"]);
    sqlx::raw_sql("drop table public.events").execute(&pool).await.unwrap();
    verify(&["--database", "--deep"]).await.error_with(5, &["table public.events is missing"]);

    let chunk = manifest.chunks.iter().find(|chunk| chunk.table == "blocks").unwrap();
    let path = site.objects().join(snapshot::key::Key::Chunk(chunk.sha256.clone()).to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(verify(&[]).await.result()["proved"], true, "its length is right");
    verify(&["--deep"]).await.error_with(5, &["byte for byte"]);
    std::fs::remove_file(&path).unwrap();
    verify(&[]).await.error_with(5, &["in full length"]);
    let strange = run(site.client("verify", &site.published(), target.url()).env("SNAPSHOTS_PUBLIC_KEY", "")).await;
    strange.error_with(6, &["no public key is trusted"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = run(&mut site.client("verify", &format!("http://127.0.0.1:{port}"), target.url())).await;
    gone.error_with(9, &["again"]);
}
