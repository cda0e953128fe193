insert into snapshots.step (run_id, name, kind, state, queue, priority, deps_left, max_attempts, backoff_base_ms,
    backoff_cap_ms, timeout_ms)
select $1, s.name, s.kind, case when s.deps = 0 then 'ready' else 'blocked' end, s.queue, $2, s.deps, s.attempts,
    s.base, s.cap, s.timeout
from unnest($3::text[], $4::text[], $5::text[], $6::integer[], $7::integer[], $8::bigint[], $9::bigint[],
    $10::bigint[]) with ordinality as s (name, kind, queue, deps, attempts, base, cap, timeout, no)
order by s.no
returning id, deps_left = 0 as ready
