-- Why: runs outlive processes. These tables are the truth about every run; apalis.jobs only carries doorbells to them.
-- The first migration of the schema: no older binary knows it.

-- Fences every write of a step: a later claim always holds a greater token.
create sequence snapshots.lease_token as bigint;

create table snapshots.run (
    id uuid primary key,
    workflow text not null,
    version integer not null,                  -- of the workflow's code that planned the steps
    params jsonb not null,
    unique_key text,                           -- at most one unfinished run per (workflow, unique_key)
    priority integer not null default 0 check (priority between 0 and 1000),  -- greater goes first
    state text not null default 'queued'
        check (state in ('queued', 'running', 'retrying', 'paused', 'succeeded', 'failed', 'cancelled')),
    next_attempt_at timestamptz,               -- set while state is 'retrying'
    parent_run_id uuid references snapshots.run (id) on delete set null,
    cancel_requested_at timestamptz,
    error text,                                -- why it failed, causes included
    created_at timestamptz not null default now(),
    started_at timestamptz,                    -- first claim of any of its steps
    done_at timestamptz
);
create unique index run_one_unfinished on snapshots.run (workflow, unique_key)
    where state in ('queued', 'running', 'retrying', 'paused');
create index run_by_age on snapshots.run (created_at desc, id desc);
create index run_by_workflow on snapshots.run (workflow, created_at desc, id desc);
create index run_unfinished on snapshots.run (created_at desc, id desc)
    where state in ('queued', 'running', 'retrying', 'paused');

create table snapshots.step (
    id bigint generated always as identity primary key,
    run_id uuid not null references snapshots.run (id) on delete cascade,
    name text not null,
    kind text not null check (kind in ('task', 'group', 'child')),  -- a group plans children and waits for them
    index integer not null default 0,          -- of a child in its group, else 0
    group_id bigint references snapshots.step (id) on delete cascade,
    state text not null default 'blocked'
        check (state in ('blocked', 'ready', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'skipped')),
    queue text not null,
    priority integer not null default 0,
    deps_left integer not null default 0,      -- predecessors that have not succeeded
    children_total integer,                    -- of a group, once planned
    children_left integer,                     -- children without an end
    children_failed integer,
    attempt integer not null default 0,        -- attempts begun; a yield gives its attempt back
    max_attempts integer not null check (max_attempts >= 1),
    backoff_base_ms bigint not null,
    backoff_cap_ms bigint not null,
    timeout_ms bigint,                         -- of one attempt
    run_at timestamptz not null default now(), -- not before
    doorbell text,                             -- id of its latest row in apalis.jobs
    rang_at timestamptz,
    lease_token bigint,
    lease_until timestamptz,
    worker text,
    progress jsonb,                            -- {"done": n, "total": n, "unit": "…"}
    input jsonb,                               -- of a child; other inputs are their predecessors' outputs
    output jsonb,
    checkpoint jsonb,                          -- what a step keeps from attempt to attempt
    error text,                                -- of the last attempt that failed, causes included
    started_at timestamptz,
    done_at timestamptz,
    unique (run_id, name, kind, index)
);
create index step_unfinished on snapshots.step (run_id) where state in ('blocked', 'ready', 'running', 'waiting');
create index step_leased on snapshots.step (lease_until) where state = 'running';
create index step_due on snapshots.step (run_at) where state = 'ready';
create index step_by_group on snapshots.step (group_id) where group_id is not null;
-- Rows are short-lived in 'ready' and 'running'; without this the partial indexes are mostly dead entries.
alter table snapshots.step set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

create table snapshots.step_dependency (
    step_id bigint not null references snapshots.step (id) on delete cascade,
    after_id bigint not null references snapshots.step (id) on delete cascade,
    primary key (step_id, after_id)
);
create index step_dependency_by_predecessor on snapshots.step_dependency (after_id);

-- History, never overwritten: one row a claim. A yield repeats the number, since it spends none.
create table snapshots.attempt (
    step_id bigint not null references snapshots.step (id) on delete cascade,
    lease_token bigint not null,
    no integer not null,
    worker text not null,
    started_at timestamptz not null default now(),
    done_at timestamptz,
    outcome text check (outcome in ('succeeded', 'retry', 'failed', 'yielded', 'lost', 'cancelled')),
    error text,
    primary key (step_id, lease_token)
);

create table snapshots.event (
    id bigint generated always as identity primary key,
    run_id uuid not null references snapshots.run (id) on delete cascade,
    step_id bigint references snapshots.step (id) on delete cascade,
    at timestamptz not null default clock_timestamp(),
    level text not null check (level in ('debug', 'info', 'warn', 'error')),
    kind text not null,
    data jsonb not null default '{}'
);
create index event_by_run on snapshots.event (run_id, id);
create index event_by_step on snapshots.event (step_id) where step_id is not null;

create table snapshots.worker (
    id text primary key,                       -- never reused, not even by the same process
    host text not null,
    pid integer not null,
    version text not null,                     -- of the binary
    queues text[] not null,
    workflows jsonb not null,                  -- [{"name": "…", "version": n}] it can run
    started_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    draining boolean not null default false
);
