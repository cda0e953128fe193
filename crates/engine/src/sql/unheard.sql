with full_limit as (
    select key from snapshots.limit_slot group by key having count(*) = count(holder)
)
select s.id, s.queue, s.priority
from snapshots.step s
join snapshots.run r on r.id = s.run_id
where s.state = 'ready'
  and s.run_at <= now()
  and r.state in ('queued', 'running', 'retrying')
  and not array['global', 'workflow ' || r.workflow] && array(select key from full_limit)
  and not exists (
      select 1 from snapshots.pause p
      where p.kind = 'workflow' and p.name = r.workflow or p.kind = 'queue' and p.name = s.queue
  )
  and (
      s.doorbell is null
      or s.rang_at < now() - $1 * interval '1 millisecond'
         and not exists (
             select 1 from apalis.jobs j where j.id = s.doorbell and j.status in ('Pending', 'Queued', 'Running')
         )
  )
order by s.run_at
limit $2
for update of s skip locked
