-- Why: some workflows may use only so much of what all machines share. A row is the right to run one step; a step that is
-- claimed takes a slot of each limit it is under, its end gives them back. An older binary takes no slots.
create table snapshots.limit_slot (
    key text not null,                         -- 'global' or 'workflow <name>'
    no integer not null check (no >= 0),
    holder bigint,                             -- the running step
    primary key (key, no)
);
create index limit_slot_by_holder on snapshots.limit_slot (holder) where holder is not null;
create index limit_slot_free on snapshots.limit_slot (key, no) where holder is null;
