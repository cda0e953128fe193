update snapshots.run r
set state = case
        when p.name is not null then 'paused'
        when r.started_at is null then 'queued'
        else 'running'
    end,
    next_attempt_at = null
from snapshots.run u
left join snapshots.pause p
    on p.kind = 'workflow' and p.name = u.workflow
        and not exists (select 1 from snapshots.step s where s.run_id = u.id and s.state = 'running')
where r.id = u.id
  and u.state in ('queued', 'running', 'retrying', 'paused')
  and r.state in ('queued', 'running', 'retrying', 'paused')
  and (r.state = 'paused') <> (p.name is not null)
