with done as (
    update snapshots.step
    set state = 'succeeded', output = $3, progress = coalesce($4, progress), error = null, lease_until = null,
        done_at = now()
    where id = $1 and lease_token = $2 and state = 'running'
    returning id, run_id, group_id
), closed as (
    update snapshots.attempt a set done_at = now(), outcome = 'succeeded'
    from done where a.step_id = done.id and a.lease_token = $2
), freed as (
    update snapshots.limit_slot l set holder = null from done where l.holder = done.id returning 1
)
select run_id, group_id, exists (select 1 from freed) from done
