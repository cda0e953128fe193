-- Why: a client that heard no answer asks again, and must not start a second run; and finished runs are deleted by age
-- and count, which needs a way to find them and no scan for what points to them. An older binary does neither.
create table snapshots.idempotency_key (
    principal text not null,                   -- whose key it is: other principals' keys of the same text are others
    request text not null,                     -- method and path
    key text not null,
    body_sha256 bytea not null,
    run_id uuid references snapshots.run (id) on delete cascade,
    created_at timestamptz not null default now(),
    primary key (principal, request, key)
);
create index idempotency_key_by_run on snapshots.idempotency_key (run_id);
create index idempotency_key_by_age on snapshots.idempotency_key (created_at);

create index run_by_end on snapshots.run (done_at) where done_at is not null;
create index run_by_workflow_and_end on snapshots.run (workflow, done_at desc) where done_at is not null;
create index run_by_parent on snapshots.run (parent_run_id) where parent_run_id is not null;
create index audit_log_by_age on snapshots.audit_log (at);
