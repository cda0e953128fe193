//! A database that Secondlayer itself made: nothing of its own is altered, and nothing private leaves it.

use snapshot::verify::{self, Subject};
use sqlx::PgPool;

use crate::support::{database, extract, psql_file, shared_data, site};

/// Definitions of everything in `public`, as text.
async fn definitions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select concat_ws('|', table_name, column_name, data_type, column_default, is_nullable) from information_schema.columns
            where table_schema = 'public'
         union all select indexdef from pg_indexes where schemaname = 'public'
         union all select conrelid::regclass::text || pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace
         union all select proname || prosrc from pg_proc where pronamespace = 'public'::regnamespace
         union all select extname || extnamespace::regnamespace::text from pg_extension where extnamespace = 'public'::regnamespace
         order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Every text value of tables that are not published, long enough to be told from other text.
async fn secrets(pool: &PgPool) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where (schemaname = 'public' and tablename not in ('blocks','transactions','events','index_progress','kysely_migration','kysely_migration_lock'))
            or schemaname like 'view\\_%'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut secrets = vec!["view_01234567".to_owned(), "canary".to_owned(), "apalis".to_owned()];
    // Of our own rows the published facts about a snapshot are no secret; who ran what, where and when is.
    let ours = "select id::text from snapshots.run union all select id::text from snapshots.worker union all select host from snapshots.worker";
    secrets
        .extend(sqlx::query_scalar::<_, String>(ours).fetch_all(pool).await.unwrap().into_iter().filter(|text| text.len() >= 8));
    for table in tables {
        let sql = format!("select value from {table} t, jsonb_each_text(to_jsonb(t)) where length(value) >= 12");
        let values: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await.unwrap();
        secrets.extend(values);
    }
    secrets.sort();
    secrets.dedup();
    secrets
}

/// Values that stand in published rows as well are no secrets.
async fn is_public(pool: &PgPool, value: &str) -> bool {
    sqlx::query_scalar(
        "select exists (select from public.blocks b where to_jsonb(b)::text like '%' || $1 || '%')
             or exists (select from public.transactions t where to_jsonb(t)::text like '%' || $1 || '%')
             or exists (select from public.events e where to_jsonb(e)::text like '%' || $1 || '%')",
    )
    .bind(value.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
    .fetch_one(pool)
    .await
    .unwrap()
}

const CANARIES: &str = "
    insert into public.accounts (email) values ('canary-account@example.test');
    update public.api_keys set name = 'canary-api-key', ip_address = '203.0.113.77';
    update public.streams set webhook_secret = 'canary-webhook-secret', webhook_url = 'https://canary-webhook.example/hook',
        filters = filters || '[{\"type\":\"canary-filter\"}]';
    update public.deliveries set payload = payload || '{\"canary-delivery\": \"canary-delivery-value\"}';
    update public.views set handler_path = '/canary/handler.js', definition = definition || '{\"canary-view\": 1}';
    insert into public.magic_links (email, token, expires_at) values ('canary-link@example.test', 'canary-token-0123456789', now());
    create table public.later_secrets (token text default 'nothing'); insert into public.later_secrets values ('canary-later-table');
    update view_01234567_stx_moves.moves set etype = 'canary-view-row'";

#[tokio::test(flavor = "multi_thread")]
async fn no_private_value_is_in_any_published_byte_and_the_database_is_as_it_was() {
    let Some(data) = shared_data() else { return };
    let site = site().await.with_flags(&["--confirmations", "6"]);
    psql_file(site.database.url(), &data.join("secondlayer-feb-epoch3.sql.gz")).await;
    let pool = site.database.pool().await;
    sqlx::raw_sql(CANARIES).execute(&pool).await.unwrap();
    let before = definitions(&pool).await;

    let service = site.serve().await;
    let manifest = service.cut().await;
    assert_eq!(manifest.schema_version.as_deref(), Some("0005_sessions"));
    assert!(manifest.audit.zero_timestamps > 0, "the genuine database has timestamps 0");
    assert_eq!(definitions(&pool).await, before, "the original's tables were altered");

    let mut published = Vec::new();
    for key in site.keys() {
        let stored = std::fs::read(site.bucket.root().join(&key)).unwrap();
        published.push((key.clone(), key.clone().into_bytes()));
        if key.ends_with(".zst") {
            published.push((key.clone(), zstd::decode_all(&stored[..]).unwrap()));
        }
        published.push((key, stored));
    }
    let mut scanned = 0;
    for secret in secrets(&pool).await {
        if is_public(&pool, &secret).await || manifest.created_at.contains(&secret) {
            continue;
        }
        scanned += 1;
        for (key, bytes) in &published {
            let found = memchr::memmem::find(bytes, secret.as_bytes()).is_some();
            assert!(!found, "{secret:?} is in {key}");
        }
    }
    assert!(scanned > 50, "only {scanned} private values were looked for");

    let target = database().await;
    extract(&site, &manifest).await.pg_restore(target.url(), &["-j8"]).await;
    let report = verify::database(&target.pool().await, &manifest, Subject::Restored, 2).await.unwrap();
    assert!(report.proved(), "{:#?}", report.checks);
    let schemas: Vec<String> = sqlx::query_scalar(
        "select nspname::text from pg_namespace where nspname !~ '^pg_' and nspname not in ('public', 'information_schema')",
    )
    .fetch_all(&target.pool().await)
    .await
    .unwrap();
    assert!(schemas.is_empty(), "{schemas:?}");
}
