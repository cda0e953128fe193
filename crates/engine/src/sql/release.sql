with released as (
    update snapshots.step s
    set deps_left = s.deps_left - 1,
        state = case when s.deps_left = 1 then 'ready' else s.state end,
        run_at = now()
    from snapshots.step_dependency d
    where d.after_id = $1 and s.id = d.step_id and s.state = 'blocked'
    returning s.id, s.queue, s.priority, s.state
)
select id, queue, priority from released where state = 'ready'
