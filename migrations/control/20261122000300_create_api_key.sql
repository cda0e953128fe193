-- Why: who may change something must be known before the service listens beyond loopback. The old binary listens on
-- loopback only and does not read this table.
create table snapshots.api_key (
    id uuid primary key,
    name text not null,
    -- First characters of the key, for people to recognise it by.
    prefix text not null,
    -- sha256 (hex) of the whole key. Keys are random, so a slow hash would only cost us CPU.
    hash text not null unique,
    scopes text[] not null check (scopes <@ array['read', 'write', 'operator', 'admin'] and cardinality(scopes) > 0),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at timestamptz
);
