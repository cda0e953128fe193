insert into snapshots.step (run_id, name, kind, index, group_id, state, queue, priority, max_attempts, backoff_base_ms,
    backoff_cap_ms, timeout_ms, input)
select g.run_id, g.name, 'child', item.no - 1, g.id, 'ready', g.queue, g.priority, g.max_attempts, g.backoff_base_ms,
    g.backoff_cap_ms, g.timeout_ms, item.input
from snapshots.step g, unnest($2::jsonb[]) with ordinality as item (input, no)
where g.id = $1
on conflict (run_id, name, kind, index) do nothing
returning id, queue, priority
