select id, lease_token, attempt, max_attempts, backoff_base_ms, backoff_cap_ms, worker
from snapshots.step
where state = 'running' and lease_until < now()
order by lease_until
limit 1
for update skip locked
