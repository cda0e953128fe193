update snapshots.step s set doorbell = null, rang_at = null
from snapshots.run r
where s.id = $1 and s.state = 'ready' and r.id = s.run_id
  and exists (select 1 from snapshots.limit_slot l where l.key in ('global', 'workflow ' || r.workflow))
