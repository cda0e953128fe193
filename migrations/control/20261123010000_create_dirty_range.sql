-- Why: a snapshot takes over the chunks of ranges that did not change. What scrubbing finds changed must be cut again by the
-- next one; and the write counters of the indexed database, kept from snapshot to snapshot, show at little cost that nothing
-- old was touched. An older binary reads every range anyway and leaves marks as they are.
create table snapshots.dirty_range (
    network text not null,
    low bigint not null,                       -- heights, inclusive
    high bigint not null,
    reason text not null,
    marked_at timestamptz not null default now(),
    primary key (network, low, high)
);

alter table snapshots.snapshot add column writes jsonb;
