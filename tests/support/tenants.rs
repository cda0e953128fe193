//! Tenants of the indexed database: rows that are nobody else's business, and work under way when a copy is made.
use sqlx::PgPool;

/// Texts that stand in tenants' rows and nowhere else.
pub(crate) const CANARIES: [&str; 6] = [
    "canary-account@example.test",
    "canary-api-key",
    "canary-webhook.example",
    "canary-webhook-secret",
    "canary-delivery",
    "canary-view-row",
];

/// An account with a key, a stream with jobs in every state and a delivery, and two views: one ahead of the chain by three blocks, with a row
/// there, and one that is being rebuilt.
const ROWS: &str = "
    insert into public.accounts (id, email) values ('a0000000-0000-4000-8000-000000000001', 'canary-account@example.test');
    insert into public.api_keys (id, key_hash, key_prefix, name, ip_address, account_id)
        values ('b0000000-0000-4000-8000-000000000001', 'hash', '01234567', 'canary-api-key', '203.0.113.77', 'a0000000-0000-4000-8000-000000000001');
    insert into public.streams (id, name, filters, webhook_url, webhook_secret, api_key_id)
        values ('c0000000-0000-4000-8000-000000000001', 'whales', '[{\"type\":\"stx_transfer\"}]', 'https://canary-webhook.example/hook',
                'canary-webhook-secret', 'b0000000-0000-4000-8000-000000000001');
    insert into public.jobs (stream_id, block_height, status, locked_at, locked_by)
        select 'c0000000-0000-4000-8000-000000000001'::uuid, height, status, case when status = 'processing' then localtimestamp end,
               case when status = 'processing' then 'worker-1' end
        from (values (5::bigint, 'completed'), (6, 'processing'), (7, 'pending'), (8, 'failed')) below (height, status)
        union all select 'c0000000-0000-4000-8000-000000000001'::uuid, max(height) + 10, 'pending', null, null from public.blocks
        union all select 'c0000000-0000-4000-8000-000000000001'::uuid, max(height) + 11, 'processing', localtimestamp, 'worker-2' from public.blocks;
    insert into public.deliveries (stream_id, block_height, status, payload)
        values ('c0000000-0000-4000-8000-000000000001', 5, 'success', '{\"text\": \"canary-delivery\\tand a tab\"}');
    create schema view_01234567_moves;
    create table view_01234567_moves.moves (_id bigserial primary key, _block_height bigint not null, _tx_id text not null,
        _created_at timestamptz not null default now(), note text, twice text generated always as (note || note) stored);
    create index moves_block_height_idx on view_01234567_moves.moves (_block_height);
    insert into view_01234567_moves.moves (_block_height, _tx_id, note) select height, 'tx' || height, 'canary-view-row' from generate_series(1, 5) height;
    insert into view_01234567_moves.moves (_block_height, _tx_id, note) select max(height) + 3, 'ahead', 'ahead' from public.blocks;
    insert into public.views (name, status, definition, schema_hash, handler_path, last_processed_block, schema_name, api_key_id)
        select 'moves', 'active', '{}'::jsonb, '1', '/data/views/moves.js', max(height) + 3, 'view_01234567_moves', 'b0000000-0000-4000-8000-000000000001'::uuid from public.blocks
        union all select 'rebuilt', 'reindexing', '{}'::jsonb, '2', '/data/views/rebuilt.js', 3, 'view_01234567_rebuilt', null::uuid";

/// Adds them.
pub(crate) async fn add_tenants(pool: &PgPool) {
    sqlx::raw_sql(ROWS).execute(pool).await.unwrap();
}
