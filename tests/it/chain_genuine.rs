//! Databases that another indexer made, and databases that our migrations made to look like those.

use anyhow::{Context, Result};
use chain::ingest::{Ingest, IngestError, Outcome};
use serde_json::json;
use sqlx::PgPool;

use crate::chain_ingest::{body, contents, count, empty_chain, hash, post};
use crate::support::{TestDatabase, database, psql_file, shared_data};

/// Definitions of everything in `public`, as text.
async fn definitions(pool: &PgPool) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select format('%s.%s %s %s %s %s', c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull,
             pg_get_expr(d.adbin, d.adrelid))
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'S', 'v', 'p')
         union all select indexdef from pg_indexes where schemaname = 'public'
         union all select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint
             where connamespace = 'public'::regnamespace
         union all select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
         order by 1",
    )
    .fetch_all(pool)
    .await?)
}

async fn genuine() -> Result<Option<(TestDatabase, PgPool)>> {
    let Some(data) = shared_data() else { return Ok(None) };
    let database = database().await;
    psql_file(database.url(), &data.join("secondlayer-feb-epoch3.sql.gz")).await;
    let pool = database.pool().await;
    Ok(Some((database, pool)))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_genuine_database_nothing_is_altered_and_further_blocks_go_in() -> Result<()> {
    let Some((_database, pool)) = genuine().await? else { return Ok(()) };
    let (before, rows) = (definitions(&pool).await?, contents(&pool).await?);
    let report = chain::migrate(&pool).await?;
    assert!(!report.created_indexer_tables && report.applied > 0);
    let ingest = Ingest::new(pool.clone(), "testnet");
    let tip: String = sqlx::query_scalar("select hash from blocks where height = 50").fetch_one(&pool).await?;
    let recording = shared_data().context("data")?.join("recordings/regtest-epoch3-transition.ndjson.gz");
    let known = ingest.replay_file(&recording, |_| {}).await?;
    assert_eq!((known.stored, known.orphaned), (0, 0));
    assert_eq!(rows, contents(&pool).await?, "a redelivery of what a genuine indexer stored changes nothing");
    let mut next = body(51, &hash("fifty-one"), &hash("unknown"));
    next["parent_block_hash"] = json!(tip);
    assert!(matches!(post(&ingest, &next).await?, Outcome::Stored(stored) if stored.orphaned.is_empty()));
    assert_eq!(count(&pool, "select last_contiguous_block from index_progress where network = 'testnet'").await?, 51);
    assert_eq!(before, definitions(&pool).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_replaces_blocks_that_a_genuine_indexer_stored() -> Result<()> {
    let Some((_database, pool)) = genuine().await? else { return Ok(()) };
    chain::migrate(&pool).await?;
    let ingest = Ingest::new(pool.clone(), "testnet");
    ingest.prepare().await?;
    let parent: String = sqlx::query_scalar("select hash from blocks where height = 48").fetch_one(&pool).await?;
    let rows = contents(&pool).await?;
    let mut fork = body(49, &hash("49"), &hash("unknown"));
    fork["parent_block_hash"] = json!(parent);
    post(&ingest, &fork).await?;
    assert_eq!(rows, contents(&pool).await?);
    post(&ingest, &body(50, &hash("50"), &hash("49"))).await?;
    let Outcome::Stored(won) = post(&ingest, &body(51, &hash("51"), &hash("50"))).await? else { anyhow::bail!("not stored") };
    assert_eq!((won.orphaned, won.adopted), (vec![49, 50], vec![49, 50, 51]));
    let stray = "select count(*) from events e left join transactions t using (tx_id) where t.tx_id is null or t.block_height <> e.block_height";
    assert_eq!(count(&pool, stray).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_genuine_indexer_left_at_a_lost_fork_moves_to_its_canonical_block() -> Result<()> {
    let Some((_database, pool)) = genuine().await? else { return Ok(()) };
    chain::migrate(&pool).await?;
    let stale: String = sqlx::query_scalar("select tx_id from events where block_height = 30 limit 1").fetch_one(&pool).await?;
    let tip: String = sqlx::query_scalar("select hash from blocks where height = 50").fetch_one(&pool).await?;
    let mut next = body(51, &hash("next"), &hash("unknown"));
    next["parent_block_hash"] = json!(tip);
    next["transactions"][0]["txid"] = json!(stale);
    next["events"][0]["txid"] = json!(stale);
    post(&Ingest::new(pool.clone(), "testnet"), &next).await?;
    let at: Vec<i64> = sqlx::query_scalar(
        "select block_height from transactions where tx_id = $1 union all select block_height from events where tx_id = $1",
    )
    .bind(&stale)
    .fetch_all(&pool)
    .await?;
    assert_eq!(at, [51, 51]);
    assert_eq!(count(&pool, "select count(*) from snapshots.chain_aside").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_tables_are_defined_as_the_genuine_ones() -> Result<()> {
    let Some((_genuine, theirs)) = genuine().await? else { return Ok(()) };
    let (_ours, ours, _) = empty_chain().await?;
    let found = definitions(&ours).await?;
    let missing: Vec<_> =
        definitions(&theirs).await?.into_iter().filter(|line| !found.contains(line) && !line.contains("stx_moves")).collect();
    assert_eq!(missing, Vec::<String>::new());
    let names: Vec<String> = sqlx::query_scalar("select name from kysely_migration order by name").fetch_all(&ours).await?;
    assert_eq!((names.len(), names[13].as_str()), (14, "0014_view_table_snapshots"));
    assert_eq!(chain::migrate(&ours).await?, chain::migrate::MigrateReport { created_indexer_tables: false, applied: 0 });
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_only_some_of_the_tables_is_refused() -> Result<()> {
    let database = database().await;
    let pool = database.pool().await;
    sqlx::query("create table public.blocks (height bigint primary key)").execute(&pool).await?;
    let error = chain::migrate(&pool).await.expect_err("refused").to_string();
    assert!(error.contains("public.transactions"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_later_versions_are_filled_where_known_and_left_alone_where_not() -> Result<()> {
    let (_database, pool, ingest) = empty_chain().await?;
    sqlx::raw_sql(
        "alter table transactions add function_args jsonb, add raw_result text, add novelty text;
         alter table blocks add burn_block_hash text, add index_block_hash text",
    )
    .execute(&pool)
    .await?;
    let Some(data) = shared_data() else { return Ok(()) };
    ingest.replay_file(&data.join("recordings/mainnet-13044.ndjson.gz"), |_| {}).await?;
    let calls = "select count(*) from transactions where jsonb_typeof(function_args) = 'array' and type = 'contract_call'";
    assert_eq!(count(&pool, calls).await?, 48);
    assert_eq!(count(&pool, "select count(*) from transactions where raw_result is null or novelty is not null").await?, 0);
    assert_eq!(
        count(&pool, "select count(*) from blocks where index_block_hash like '0x%' and burn_block_hash like '0x%'").await?,
        20
    );
    sqlx::raw_sql("delete from events; delete from transactions; alter table transactions add forced text not null")
        .execute(&pool)
        .await?;
    let refused = post(&ingest, &body(99_999, &hash("x"), &hash("y"))).await;
    assert!(matches!(refused, Err(IngestError::Column { ref column, .. }) if column == "forced"), "{refused:?}");
    Ok(())
}
