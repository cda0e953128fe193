with planned as (
    update snapshots.step
    set state = 'waiting', children_total = $3, children_left = $3, children_failed = 0, error = null,
        lease_until = null
    where id = $1 and lease_token = $2 and state = 'running'
    returning id, run_id
), closed as (
    update snapshots.attempt a set done_at = now(), outcome = 'succeeded'
    from planned where a.step_id = planned.id and a.lease_token = $2
), freed as (
    update snapshots.limit_slot l set holder = null from planned where l.holder = planned.id returning 1
)
select run_id, exists (select 1 from freed) from planned
