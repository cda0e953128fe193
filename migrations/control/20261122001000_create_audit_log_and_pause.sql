-- Why: operators act on runs; who did what and when is kept apart from the runs, which retention deletes.
-- An older binary acts without writing here, ignores pauses, and numbers attempts after a retry from 1 again.
create table snapshots.audit_log (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null,                       -- who: an API key's name, a user of the machine, 'schedule <name>'
    act text not null,                         -- dotted, as 'run.retry'
    subject text not null,                     -- what it was done to: a run's id, 'workflow <name>', 'schedule <name>'
    details jsonb not null default '{}'
);
create index audit_log_by_subject on snapshots.audit_log (subject, id desc);

-- While a row is here nothing of that workflow, or on that queue, is claimed; what runs goes on.
create table snapshots.pause (
    kind text not null check (kind in ('workflow', 'queue')),
    name text not null,
    reason text not null,
    actor text not null,
    at timestamptz not null default now(),
    primary key (kind, name)
);

-- An operator's retry gives a step all its attempts again; their numbers go on, so history stays readable.
alter table snapshots.step add column attempts_before integer not null default 0;
