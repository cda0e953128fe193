select case when p.kind = 'group'
        then (select coalesce(jsonb_agg(c.output order by c.index), '[]') from snapshots.step c where c.group_id = p.id)
        else coalesce(p.output, 'null')
    end
from snapshots.step p
where p.run_id = $1 and p.name = any($2) and p.kind in ('task', 'group') and p.state = 'succeeded'
