update snapshots.run r
set state = case
        when r.cancel_requested_at is not null
            and exists (select 1 from snapshots.step where run_id = r.id and state = 'cancelled') then 'cancelled'
        when exists (select 1 from snapshots.step where run_id = r.id and state = 'failed') then 'failed'
        else 'succeeded'
    end,
    next_attempt_at = null,
    done_at = now()
where r.id = $1
  and r.state in ('queued', 'running', 'retrying', 'paused')
  and not exists (
      select 1 from snapshots.step
      where run_id = r.id and state in ('blocked', 'ready', 'running', 'waiting')
  )
returning r.state
