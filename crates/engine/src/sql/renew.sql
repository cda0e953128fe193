update snapshots.step s
set lease_until = now() + $3 * interval '1 millisecond', progress = coalesce($4, s.progress)
from snapshots.run r
where s.id = $1 and s.lease_token = $2 and s.state = 'running' and r.id = s.run_id
returning r.cancel_requested_at is not null
