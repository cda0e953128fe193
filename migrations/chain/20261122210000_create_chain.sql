-- What following forks needs beside the indexer's own tables, which hold one block per height and no parent links.

create table snapshots.chain_block (
    -- Globally unique id; for blocks that another indexer stored without it, adopted:<height>:<hash>.
    index_block_hash text primary key,
    parent_index_block_hash text not null,
    height bigint not null,
    hash text not null,
    parent_hash text not null,
    burn_block_hash text,
    -- Order of arrival: the first of two equal heights stands.
    arrival bigint generated always as identity,
    -- Its rows are in the chain tables.
    canonical boolean not null,
    -- Found in the chain tables, stored there by another indexer.
    adopted boolean not null default false,
    -- Some of its transactions stand under another canonical block until the chain between is known.
    partial boolean not null default false,
    -- How many it was delivered with; null when adopted.
    transaction_count integer,
    event_count integer,
    -- event_index of the events that a post-condition undid; the events table cannot say so.
    uncommitted integer[] not null default '{}',
    received_at timestamptz not null default now()
);
create index chain_block_height_idx on snapshots.chain_block (height desc, arrival);
create unique index chain_block_canonical_idx on snapshots.chain_block (height) where canonical;
create index chain_block_partial_idx on snapshots.chain_block (height) where partial;

-- Rows of blocks that the chain tables do not hold (in full), as JSON of the rows, so that columns
-- we do not know come back too.
create table snapshots.chain_aside (
    index_block_hash text primary key
        references snapshots.chain_block on update cascade on delete cascade,
    block jsonb not null,
    transactions jsonb not null,
    events jsonb not null
);
