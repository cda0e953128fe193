with first as (
    select format('child %s: %s', index, error) as text
    from snapshots.step where group_id = $1 and state = 'failed' order by index limit 1
)
update snapshots.step g
set state = 'failed', done_at = now(),
    error = format('%s of %s `%s` steps failed; first: %s', g.children_failed, g.children_total, g.name, first.text)
from first
where g.id = $1 and g.state = 'waiting'
returning g.error
