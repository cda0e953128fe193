-- Why: people take snapshots back and pin them, and old ones expire, are kept for a grace time, and go. An object that no
-- manifest names is deleted only if two looks at the bucket, a grace time apart, say so. An older binary lists published
-- snapshots only, as before, and deletes nothing.
alter table snapshots.snapshot drop constraint snapshot_state_check;
alter table snapshots.snapshot add constraint snapshot_state_check
    check (state in ('cutting', 'published', 'retracted', 'expired', 'deleted'));
alter table snapshots.snapshot
    add column retracted_at timestamptz,
    add column retract_reason text,
    add column pin_reason text,                -- set: never pruned
    add column expired_at timestamptz;

create table snapshots.garbage (
    key text primary key,                      -- of an object that no manifest named when it was seen
    bytes bigint not null,
    seen_at timestamptz not null default now(),
    seen_by uuid not null,                     -- the run that saw it first
    condemned_by uuid                          -- the run that is deleting it
);
