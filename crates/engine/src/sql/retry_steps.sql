-- Everything that did not succeed gets its attempts back. Skipped steps lost count of their predecessors, so all
-- counts are made anew; a group that had planned waits again for those of its children that did not succeed.
update snapshots.step s
set attempts_before = s.attempts_before + s.attempt,
    attempt = 0,
    deps_left = c.deps,
    state = case
        when s.kind = 'group' and s.children_total is not null then 'waiting'
        when c.deps = 0 then 'ready'
        else 'blocked'
    end,
    children_left = case when s.children_total is not null then c.children end,
    children_failed = case when s.children_total is not null then 0 end,
    run_at = now(),
    doorbell = null,
    rang_at = null,
    lease_until = null,
    done_at = null
from (
    select o.id,
        (select count(*) from snapshots.step_dependency d
         join snapshots.step p on p.id = d.after_id
         where d.step_id = o.id and p.state <> 'succeeded')::integer as deps,
        (select count(*) from snapshots.step k where k.group_id = o.id and k.state <> 'succeeded')::integer as children
    from snapshots.step o
    where o.run_id = $1 and o.state in ('failed', 'cancelled', 'skipped')
) c
where s.id = c.id
returning s.id, s.state, s.children_left
