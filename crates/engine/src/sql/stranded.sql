select r.id, r.workflow, r.version,
    (select string_agg(distinct k.version::text, ', ')
     from snapshots.worker w, jsonb_to_recordset(w.workflows) as k (name text, version integer)
     where k.name = r.workflow and w.seen_at > now() - $1 * interval '1 millisecond') as live
from snapshots.run r
where r.state in ('queued', 'running', 'retrying')
  and exists (
      select 1 from snapshots.worker w, jsonb_to_recordset(w.workflows) as k (name text, version integer)
      where k.name = r.workflow and w.seen_at > now() - $1 * interval '1 millisecond'
        and w.started_at < now() - $1 * interval '1 millisecond'
  )
  and not exists (
      select 1 from snapshots.worker w, jsonb_to_recordset(w.workflows) as k (name text, version integer)
      where k.name = r.workflow and k.version = r.version and w.seen_at > now() - $1 * interval '1 millisecond'
  )
limit 100
for update of r skip locked
