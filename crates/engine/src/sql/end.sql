with ended as (
    update snapshots.step s
    set state = case when r.cancel_requested_at is not null then 'cancelled' when $3 then 'ready' else 'failed' end,
        attempt = s.attempt - case when $4 = 'yielded' then 1 else 0 end,
        run_at = now() + $5 * interval '1 millisecond',
        error = coalesce($6, s.error),
        lease_until = null,
        doorbell = null,
        rang_at = null,
        done_at = case when $3 and r.cancel_requested_at is null then null else now() end
    from snapshots.run r
    where s.id = $1 and s.lease_token = $2 and s.state = 'running' and r.id = s.run_id
    returning s.id, s.run_id, s.group_id, s.name, s.state, s.queue, s.priority, s.attempt, s.max_attempts, s.run_at
), closed as (
    update snapshots.attempt a
    set done_at = now(), outcome = case when e.state = 'cancelled' then 'cancelled' else $4 end, error = $6
    from ended e where a.step_id = e.id and a.lease_token = $2
), freed as (
    update snapshots.limit_slot l set holder = null from ended where l.holder = ended.id returning 1
)
select *, exists (select 1 from freed) as freed from ended
