//! Rows are loaded in COPY's binary form where the server allows it: every value comes back as it was.

use snapshot::verify::{self, Subject};
use sqlx::PgPool;

use crate::support::{Site, database, run, site_with_chain};

/// One digest of all rows of each chain table, of every column.
async fn rows(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select md5(string_agg(b::text, ';' order by height)) from public.blocks b
         union all select md5(string_agg(t::text, ';' order by tx_id)) from public.transactions t
         union all select md5(string_agg(e::text, ';' order by id)) from public.events e",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Cuts the site's database, restores it row by row and table by table, and compares.
async fn comes_back(site: &Site) {
    let service = site.serve().await;
    let manifest = service.cut().await;
    service.terminate().await;
    let heights = manifest.block_height.cast_signed();
    let source = site.database.pool().await;
    for table in [("events", "block_height"), ("transactions", "block_height"), ("blocks", "height")] {
        let sql = format!("delete from public.{} where {} > {heights}", table.0, table.1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&source).await.unwrap();
    }
    for way in [&["--jobs=2"][..], &["--jobs=2", "--fast"]] {
        let target = database().await;
        assert_eq!(run(site.client("restore", &site.published(), target.url()).args(way)).await.result()["proved"], true);
        let pool = target.pool().await;
        assert_eq!(rows(&pool).await, rows(&source).await, "{way:?}");
        assert!(verify::database(&pool, &manifest, Subject::Restored, 2).await.unwrap().proved(), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_any_characters_and_instants_of_any_age_come_back_as_they_were() {
    let site = site_with_chain(600).await;
    let strange = r#"
        update public.transactions set contract_id = null, function_name = E'a\tb\nc\rd\be\ff\vg\\h\\N\\.i', sender = '' where block_height % 5 = 0;
        update public.transactions set function_name = '\N', sender = '\', raw_tx = repeat('Ωé漢🦀', 40000) where block_height = 7;
        update public.events set type = E'\\\t', data = '{"a\\b\n": ["\u00e9\ud83e\udd80", null, -1.50, 1e400, ""], "": {}}' where block_height % 3 = 0;
        update public.events set data = 'null' where block_height % 7 = 0;
        update public.blocks set created_at = 'infinity', timestamp = -9223372036854775808 where height = 3;
        update public.blocks set created_at = '-infinity', timestamp = 9223372036854775807 where height = 4;
        update public.blocks set created_at = '0044-03-15 12:00:00.000001 BC' where height = 5;
        update public.blocks set created_at = '4713-01-01 00:00:00 BC' where height = 6;
        update public.blocks set created_at = '12345-12-31 23:59:59.999999' where height = 7;
        update public.blocks set created_at = '294276-12-31 23:59:59' where height = 9;
        update public.blocks set created_at = '1999-12-31 23:59:59.9' where height = 8"#;
    sqlx::raw_sql(strange).execute(&site.database.pool().await).await.unwrap();
    comes_back(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_columns_of_other_types_is_loaded_as_text() {
    let columns = "events.price,events.tags,blocks.short,blocks.seen,blocks.note,blocks.name";
    let site = site_with_chain(600).await.with_flags(&["--include-columns", columns]);
    let more = "alter table public.events add column price numeric, add column tags text[];
                alter table public.blocks add column short smallint, add column seen timestamptz, add column note json, add column name varchar(9);
                update public.events set price = -0.10 * event_index, tags = array['a\tb', null, '{}'];
                update public.blocks set short = -height, seen = created_at, note = '{ \"a\" : 1 }', name = 'b' || height";
    sqlx::raw_sql(more).execute(&site.database.pool().await).await.unwrap();
    comes_back(&site).await;
}
