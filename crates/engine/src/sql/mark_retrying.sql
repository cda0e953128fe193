update snapshots.run r
set state = 'retrying',
    next_attempt_at = (select min(run_at) from snapshots.step where run_id = r.id and state = 'ready')
where ($1::uuid is null or r.id = $1)
  and r.state = 'running'
  and exists (select 1 from snapshots.step where run_id = r.id and state = 'ready')
  and not exists (
      select 1 from snapshots.step
      where run_id = r.id and (state = 'running' or state = 'ready' and run_at <= now())
  )
