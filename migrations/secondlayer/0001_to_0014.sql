-- The indexer's own schema as its migrations 0001 to 0014 leave it: same names, types and column order, so that its
-- services start on a database that we made. Run only where none of its tables exist.

create table public.accounts (
    id uuid default gen_random_uuid() not null constraint accounts_pkey primary key,
    email text not null constraint accounts_email_key unique,
    plan text default 'free' not null,
    created_at timestamptz default now() not null
);

create table public.api_keys (
    id uuid default gen_random_uuid() not null constraint api_keys_pkey primary key,
    key_hash text not null constraint api_keys_key_hash_key unique,
    key_prefix text not null,
    name text,
    status text default 'active' not null,
    rate_limit integer default 120 not null,
    ip_address text not null,
    last_used_at timestamp,
    revoked_at timestamp,
    created_at timestamp default now() not null,
    account_id uuid not null constraint api_keys_account_id_fkey references public.accounts (id) on delete cascade
);
create index api_keys_account_id_idx on public.api_keys (account_id);
create index api_keys_ip_address_idx on public.api_keys (ip_address);
create index api_keys_key_hash_idx on public.api_keys (key_hash);
create index api_keys_status_idx on public.api_keys (status);

create table public.blocks (
    height bigint not null constraint blocks_pkey primary key,
    hash text not null,
    parent_hash text not null,
    burn_block_height bigint not null,
    "timestamp" bigint not null,
    canonical boolean default true not null,
    created_at timestamp default now() not null
);
create index blocks_canonical_height_idx on public.blocks (canonical, height);
create index blocks_hash_idx on public.blocks (hash);

create table public.transactions (
    tx_id text not null constraint transactions_pkey primary key,
    block_height bigint not null constraint transactions_block_height_fkey references public.blocks (height),
    type text not null,
    sender text not null,
    status text not null,
    contract_id text,
    function_name text,
    raw_tx text not null,
    created_at timestamp default now() not null,
    tx_index integer default 0 not null
);
create index transactions_block_height_idx on public.transactions (block_height);
create index transactions_contract_id_idx on public.transactions (contract_id);
create index transactions_sender_idx on public.transactions (sender);

create table public.events (
    id uuid default gen_random_uuid() not null constraint events_pkey primary key,
    tx_id text not null constraint events_tx_id_fkey references public.transactions (tx_id),
    block_height bigint not null constraint events_block_height_fkey references public.blocks (height),
    event_index integer not null,
    type text not null,
    data jsonb not null,
    created_at timestamp default now() not null
);
create index events_block_height_idx on public.events (block_height);
create index events_tx_id_idx on public.events (tx_id);
create index events_type_idx on public.events (type);

create table public.index_progress (
    network text not null constraint index_progress_pkey primary key,
    last_indexed_block bigint default 0 not null,
    last_contiguous_block bigint default 0 not null,
    highest_seen_block bigint default 0 not null,
    updated_at timestamp default now() not null
);

create table public.streams (
    id uuid default gen_random_uuid() not null constraint streams_pkey primary key,
    name text not null,
    status text default 'active' not null,
    filters jsonb not null,
    options jsonb default '{}' not null,
    webhook_url text not null,
    webhook_secret text,
    created_at timestamp default now() not null,
    updated_at timestamp default now() not null,
    api_key_id uuid constraint streams_api_key_id_fkey references public.api_keys (id)
);
create index streams_api_key_id_idx on public.streams (api_key_id);
create index streams_status_idx on public.streams (status);

create table public.stream_metrics (
    stream_id uuid not null constraint stream_metrics_pkey primary key
        constraint stream_metrics_stream_id_fkey references public.streams (id) on delete cascade,
    last_triggered_at timestamp,
    last_triggered_block bigint,
    total_deliveries integer default 0 not null,
    failed_deliveries integer default 0 not null,
    error_message text
);
create index stream_metrics_last_triggered_at_idx on public.stream_metrics (last_triggered_at);

create table public.jobs (
    id uuid default gen_random_uuid() not null constraint jobs_pkey primary key,
    stream_id uuid not null constraint jobs_stream_id_fkey references public.streams (id) on delete cascade,
    block_height bigint not null,
    status text default 'pending' not null,
    attempts integer default 0 not null,
    locked_at timestamp,
    locked_by text,
    error text,
    backfill boolean default false not null,
    created_at timestamp default now() not null,
    completed_at timestamp
);
create index jobs_block_height_idx on public.jobs (block_height);
create index jobs_locked_at_idx on public.jobs (locked_at);
create index jobs_status_idx on public.jobs (status);
create index jobs_stream_id_idx on public.jobs (stream_id);

create table public.deliveries (
    id uuid default gen_random_uuid() not null constraint deliveries_pkey primary key,
    stream_id uuid not null constraint deliveries_stream_id_fkey references public.streams (id) on delete cascade,
    job_id uuid constraint deliveries_job_id_fkey references public.jobs (id) on delete set null,
    block_height bigint not null,
    status text not null,
    status_code integer,
    response_time_ms integer,
    attempts integer default 1 not null,
    error text,
    payload jsonb not null,
    created_at timestamp default now() not null
);
create index deliveries_block_height_idx on public.deliveries (block_height);
create index deliveries_status_idx on public.deliveries (status);
create index deliveries_stream_id_idx on public.deliveries (stream_id);

create table public.views (
    id uuid default gen_random_uuid() not null constraint views_pkey primary key,
    name text not null,
    version text default '1.0.0' not null,
    status text default 'active' not null,
    definition jsonb not null,
    schema_hash text not null,
    handler_path text not null,
    last_processed_block bigint default 0 not null,
    last_error text,
    last_error_at timestamp,
    total_processed bigint default 0 not null,
    total_errors bigint default 0 not null,
    created_at timestamp default now() not null,
    updated_at timestamp default now() not null,
    api_key_id uuid constraint views_api_key_id_fkey references public.api_keys (id),
    schema_name text
);
create index views_api_key_id_idx on public.views (api_key_id);
create unique index views_name_api_key_id_unique on public.views (name, api_key_id);
create index views_name_idx on public.views (name);
create index views_status_idx on public.views (status);

create function public.notify_view_changes() returns trigger language plpgsql as $$
begin
    perform pg_notify(
        'view_changes',
        json_build_object('operation', tg_op, 'name', coalesce(new.name, old.name))::text
    );
    return coalesce(new, old);
end;
$$;
create trigger views_notify_trigger after insert or update or delete on public.views
    for each row execute function public.notify_view_changes();

create table public.magic_links (
    id uuid default gen_random_uuid() not null constraint magic_links_pkey primary key,
    email text not null,
    token text not null constraint magic_links_token_key unique,
    expires_at timestamptz not null,
    used_at timestamptz,
    created_at timestamptz default now() not null
);

create table public.usage_daily (
    account_id uuid not null constraint usage_daily_account_id_fkey references public.accounts (id) on delete cascade,
    date date not null,
    api_requests integer default 0 not null,
    deliveries integer default 0 not null,
    constraint usage_daily_pkey primary key (account_id, date)
);

create table public.usage_snapshots (
    id uuid default gen_random_uuid() not null constraint usage_snapshots_pkey primary key,
    account_id uuid not null
        constraint usage_snapshots_account_id_fkey references public.accounts (id) on delete cascade,
    measured_at timestamptz default now() not null,
    storage_bytes bigint default 0 not null
);

create table public.sessions (
    id uuid default gen_random_uuid() not null constraint sessions_pkey primary key,
    token_hash text not null constraint sessions_token_hash_key unique,
    token_prefix text not null,
    account_id uuid not null constraint sessions_account_id_fkey references public.accounts (id) on delete cascade,
    ip_address text not null,
    expires_at timestamptz default (now() + interval '90 days') not null,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz default now() not null
);
create index sessions_account_id_idx on public.sessions (account_id);
create index sessions_token_hash_idx on public.sessions (token_hash);

-- 0007 made a table that 0008 dropped; its extension stayed. Nothing here needs it, so a server that lacks it, or a role
-- that may not install it, is no reason to stop.
do $$
begin
    create extension if not exists pg_trgm with schema public;
exception when insufficient_privilege or undefined_file or feature_not_supported then
    raise notice 'pg_trgm is not installed: %', sqlerrm;
end;
$$;

create table public.waitlist (
    id uuid default gen_random_uuid() not null constraint waitlist_pkey primary key,
    email text not null constraint waitlist_email_key unique,
    source text default 'website',
    created_at timestamptz default now() not null,
    status text default 'pending' not null
);

create table public.account_insights (
    id uuid default gen_random_uuid() not null constraint account_insights_pkey primary key,
    account_id uuid not null constraint account_insights_account_id_fkey references public.accounts (id),
    category text not null,
    insight_type text not null,
    resource_id text,
    severity text not null,
    title text not null,
    body text not null,
    data jsonb,
    dismissed_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz default now() not null
);
create index idx_account_insights_account on public.account_insights (account_id);

create table public.account_agent_runs (
    id uuid default gen_random_uuid() not null constraint account_agent_runs_pkey primary key,
    account_id uuid not null constraint account_agent_runs_account_id_fkey references public.accounts (id),
    started_at timestamptz default now() not null,
    completed_at timestamptz,
    status text default 'running' not null,
    input_tokens integer default 0,
    output_tokens integer default 0,
    cost_usd numeric(10, 6) default 0,
    insights_created integer default 0,
    error text
);
create index idx_account_agent_runs_account on public.account_agent_runs (account_id);

create table public.view_health_snapshots (
    id uuid default gen_random_uuid() not null constraint view_health_snapshots_pkey primary key,
    view_id uuid not null constraint view_health_snapshots_view_id_fkey references public.views (id) on delete cascade,
    total_processed bigint not null,
    total_errors bigint not null,
    last_processed_block integer,
    captured_at timestamptz default now() not null
);
create index idx_view_health_snapshots_view_captured on public.view_health_snapshots (view_id, captured_at);

create table public.view_processing_stats (
    id uuid default gen_random_uuid() not null constraint view_processing_stats_pkey primary key,
    view_name text not null,
    api_key_id text,
    bucket_start timestamptz,
    bucket_end timestamptz,
    blocks_processed integer,
    total_time_ms integer,
    handler_time_ms integer,
    flush_time_ms integer,
    max_block_time_ms integer,
    max_handler_time_ms integer,
    avg_ops_per_block real,
    is_catchup boolean default false,
    created_at timestamptz default now() not null
);
create index idx_view_processing_stats_view_bucket on public.view_processing_stats (view_name, bucket_start);
create index idx_view_processing_stats_api_key on public.view_processing_stats (api_key_id);

create table public.view_table_snapshots (
    id uuid default gen_random_uuid() not null constraint view_table_snapshots_pkey primary key,
    view_name text not null,
    api_key_id text,
    table_name text not null,
    row_count bigint,
    created_at timestamptz default now() not null
);
create index idx_view_table_snapshots_view_table_created
    on public.view_table_snapshots (view_name, table_name, created_at);
create index idx_view_table_snapshots_api_key on public.view_table_snapshots (api_key_id);

create table public.kysely_migration (
    name varchar(255) not null constraint kysely_migration_pkey primary key,
    "timestamp" varchar(255) not null
);
create table public.kysely_migration_lock (
    id varchar(255) not null constraint kysely_migration_lock_pkey primary key,
    is_locked integer default 0 not null
);
insert into public.kysely_migration_lock (id) values ('migration_lock');
insert into public.kysely_migration (name, "timestamp")
select name, to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
from unnest(array[
    '0001_initial', '0002_api_keys', '0003_tenant_isolation', '0004_accounts_and_usage', '0005_sessions',
    '0006_tx_index', '0007_contracts', '0008_drop_contracts', '0009_waitlist', '0010_waitlist_status',
    '0011_account_insights', '0012_view_health_snapshots', '0013_view_processing_stats', '0014_view_table_snapshots'
]) as name;
