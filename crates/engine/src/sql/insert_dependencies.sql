insert into snapshots.step_dependency (step_id, after_id)
select s.id, a.id
from unnest($2::text[], $3::text[]) as d (name, after)
join snapshots.step s on s.run_id = $1 and s.name = d.name
join snapshots.step a on a.run_id = $1 and a.name = d.after
