select p.name,
    case when p.kind = 'group'
        then (select coalesce(jsonb_agg(c.output order by c.index), '[]') from snapshots.step c where c.group_id = p.id)
        else coalesce(p.output, 'null')
    end as output
from snapshots.step_dependency d
join snapshots.step p on p.id = d.after_id
where d.step_id = $1
order by p.id
