with target as (
    select s.id, array(
        select l.key from snapshots.limit_slot l where l.key in ('global', 'workflow ' || r.workflow) and l.no = 0
    ) as keys
    from snapshots.step s
    join snapshots.run r on r.id = s.run_id
    where s.id = $1 and s.state = 'ready'
), picked as (
    select free.key, free.no
    from target t
    cross join lateral unnest(t.keys) as k (key)
    cross join lateral (
        select l.key, l.no from snapshots.limit_slot l
        where l.key = k.key and l.holder is null
        limit 1
        for update skip locked
    ) free
), claimed as (
    update snapshots.step s
    set state = 'running',
        attempt = s.attempt + 1,
        lease_token = nextval('snapshots.lease_token'),
        lease_until = now() + $3 * interval '1 millisecond',
        worker = $2,
        progress = null,
        started_at = coalesce(s.started_at, now())
    from snapshots.run r, target t
    where s.id = $1
      and t.id = s.id
      and r.id = s.run_id
      and s.state = 'ready'
      and s.run_at <= now()
      and s.attempt < s.max_attempts
      and r.state in ('queued', 'running', 'retrying')
      and r.cancel_requested_at is null
      and (r.workflow, r.version) in (select * from unnest($4::text[], $5::integer[]))
      and not exists (
          select 1 from snapshots.pause p
          where p.kind = 'workflow' and p.name = r.workflow or p.kind = 'queue' and p.name = s.queue
      )
      and (cardinality(t.keys) = 0 or cardinality(t.keys) = (select count(*) from picked))
    returning s.id, s.lease_token, s.run_id, s.name, s.kind, s.index, s.attempt, s.max_attempts, s.backoff_base_ms,
        s.backoff_cap_ms, s.timeout_ms, s.input, r.workflow, r.version, r.unique_key, r.params,
        r.created_at, s.attempts_before
), held as (
    update snapshots.limit_slot l set holder = c.id
    from claimed c, picked p
    where l.key = p.key and l.no = p.no
), opened as (
    insert into snapshots.attempt (step_id, lease_token, no, worker)
    select id, lease_token, attempts_before + attempt, $2 from claimed
), begun as (
    update snapshots.run r
    set state = 'running', next_attempt_at = null, started_at = coalesce(r.started_at, now())
    from claimed c
    where r.id = c.run_id and r.state in ('queued', 'retrying')
    returning pg_notify('snapshots_run', r.id::text)
)
select claimed.*, (select count(*) from begun) from claimed
