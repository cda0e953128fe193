-- Snapshots of the full profile. Their manifests are encrypted for operators, so what the service must remember of them
-- (which there are, how old, which of them latest may name) stands here, and nothing of what is in them.

create table snapshots.full_snapshot (
    network text not null,
    -- UTC date, then .2, .3 for more on one day.
    id text not null,
    run_id uuid not null unique,
    sequence bigint not null,
    state text not null default 'cutting' check (state in ('cutting', 'published', 'expired', 'deleted')),
    created_at timestamptz not null default now(),
    -- Set before the manifest is written, so that an attempt after a crash knows its own.
    manifest_sha256 text,
    block_height bigint,
    tables integer,
    rows bigint,
    raw_bytes bigint,
    size_bytes bigint,
    published_at timestamptz,
    expired_at timestamptz,
    primary key (network, id),
    unique (network, sequence)
);
