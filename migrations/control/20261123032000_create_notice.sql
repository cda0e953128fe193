-- Why: operators hear once of each run that ended badly, from a run of its own. The event of the end is the message; a row here
-- says that a run was started to tell it, and is written in one transaction with that run. An older binary tells nobody.
create table snapshots.notice (
    event_id bigint primary key references snapshots.event (id) on delete cascade,
    run_id uuid references snapshots.run (id) on delete set null,  -- the run that tells it
    at timestamptz not null default now()
);
create index notice_by_run on snapshots.notice (run_id);
