-- Why: the list of snapshots must be quick and must know those that are under way; uploads must be found again after a
-- crash, since not every S3 server can list them. The bucket stays the truth: both tables can be lost.
create table snapshots.snapshot (
    network text not null,
    id text not null,
    -- The run that cuts it. One run, one snapshot: a step that is run again finds its own row.
    run_id uuid not null unique,
    sequence bigint not null,
    state text not null default 'cutting' check (state in ('cutting', 'published')),
    block_height bigint,
    block_hash text,
    url text,
    checksum text,
    size_bytes bigint,
    manifest_sha256 text,
    created_at timestamptz not null default now(),
    published_at timestamptz,
    promoted_at timestamptz,
    primary key (network, id),
    unique (network, sequence)
);
create index snapshot_published_idx on snapshots.snapshot (published_at desc, network, id) where state = 'published';

create table snapshots.upload (
    key text primary key,
    upload_id text not null,
    part_bytes bigint not null,
    -- [{"number": 1, "etag": "…"}]: parts the server has acknowledged.
    parts jsonb not null default '[]',
    started_at timestamptz not null default now()
);
