with recursive later (id) as (
    select step_id from snapshots.step_dependency where after_id = $1
    union
    select d.step_id from snapshots.step_dependency d join later on d.after_id = later.id
)
update snapshots.step set state = 'skipped', done_at = now()
where id in (select id from later) and state = 'blocked'
