-- Why: schedules live where any number of schedulers see them; a tick is fired by whoever locks its row first.
-- An older binary fires nothing, and starts runs without the two new columns.
create table snapshots.schedule (
    name text primary key,
    workflow text not null,
    params jsonb not null default '{}',
    unique_key text,                           -- of its runs
    priority integer not null default 0 check (priority between 0 and 1000),
    cron text not null,                        -- five fields, as crontab(5)
    timezone text not null,                    -- IANA name
    overlap text not null check (overlap in ('skip', 'queue', 'cancel_old')),
    catchup text not null check (catchup in ('none', 'last', 'all')),
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    next_at timestamptz,                       -- the tick it waits for; none when it never fires again
    last_tick_at timestamptz,                  -- the tick it dealt with last …
    last_outcome text check (last_outcome in ('fired', 'skipped', 'waiting', 'missed', 'duplicate', 'refused')),
    last_detail text,
    last_run_id uuid references snapshots.run (id) on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index schedule_due on snapshots.schedule (next_at) where paused_at is null;
create index schedule_by_last_run on snapshots.schedule (last_run_id) where last_run_id is not null;

alter table snapshots.run add column schedule text, add column fire_at timestamptz;
-- However many schedulers there are and whatever their clocks say, a tick makes one run.
create unique index run_one_a_tick on snapshots.run (schedule, fire_at) where fire_at is not null;
create index run_by_schedule on snapshots.run (schedule, created_at desc) where schedule is not null;
