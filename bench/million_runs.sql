-- A million finished runs, one every 7.5 seconds, each with a step and an attempt; one of 1,000 failed. For the benchmark of
-- the engine and for a test. Foreign keys hold by construction and are not checked row by row; indexes are made afterwards.
set session_replication_role = replica;
create temporary table saved as select indexdef from pg_indexes i where schemaname = 'snapshots'
    and not exists (select from pg_constraint where conname = i.indexname) and tablename in ('run', 'step', 'attempt');
do $$ declare r record; begin
    for r in select i.indexname from pg_indexes i join saved using (indexdef) loop execute 'drop index snapshots.' || r.indexname; end loop;
end $$;
insert into snapshots.run (id, workflow, version, params, state, error, created_at, started_at, done_at)
select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, (array['nightly', 'scrub', 'prune', 'export'])[1 + n % 4], 1,
    '{}', case when n % 1000 = 0 then 'failed' else 'succeeded' end, case when n % 1000 = 0 then 'disk full' end,
    t.at, t.at, t.at
from generate_series(1, 1000000) n cross join lateral (select now() - n * interval '7.5 seconds' as at) t;
insert into snapshots.step (id, run_id, name, kind, state, queue, attempt, max_attempts, backoff_base_ms, backoff_cap_ms, done_at)
    overriding system value
select n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'a', 'task', 'succeeded', 'io', 1, 5, 2000, 300000, now()
from generate_series(1, 1000000) n;
insert into snapshots.attempt (step_id, lease_token, no, worker, outcome, done_at)
select n, n, 1, 'w', 'succeeded', now() from generate_series(1, 1000000) n;
do $$ declare r record; begin for r in select indexdef from saved loop execute r.indexdef; end loop; end $$;
select setval('snapshots.lease_token', 1000000), setval(pg_get_serial_sequence('snapshots.step', 'id'), 1000000);
analyze snapshots.run, snapshots.step, snapshots.attempt;
