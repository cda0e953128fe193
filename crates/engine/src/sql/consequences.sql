-- What the five statements share. Callers hold the fence of the step that ended, so each of these runs once for each end.
-- How these functions may change is said at the top of statements.sql.

create or replace function snapshots.plan(p_group bigint, p_children jsonb[]) returns void language plpgsql as $$
declare
    planned bigint[];
begin
    with child as (
        insert into snapshots.step (run_id, name, kind, index, group_id, state, queue, priority, max_attempts,
            backoff_base_ms, backoff_cap_ms, timeout_ms, input)
        select g.run_id, g.name, 'child', item.no - 1, g.id, 'ready', g.queue, g.priority, g.max_attempts,
            g.backoff_base_ms, g.backoff_cap_ms, g.timeout_ms, item.input
        from snapshots.step g, unnest(p_children) with ordinality as item (input, no)
        where g.id = p_group
        on conflict (run_id, name, kind, index) do nothing
        returning id
    )
    select array_agg(id) into planned from child;
    perform snapshots.ring(planned);
end $$;

create or replace function snapshots.succeed(p_run uuid, p_step bigint) returns void language plpgsql as $$
declare
    released bigint[];
begin
    with later as (
        update snapshots.step s
        set deps_left = s.deps_left - 1,
            state = case when s.deps_left = 1 then 'ready' else s.state end,
            run_at = now()
        from snapshots.step_dependency d
        where d.after_id = p_step and s.id = d.step_id and s.state = 'blocked'
        returning s.id, s.state
    )
    select array_agg(id) into released from later where state = 'ready';
    if released is null then
        perform snapshots.settle(p_run);
    else
        perform snapshots.ring(released);
    end if;
    perform pg_notify('snapshots_run', p_run::text);
end $$;

drop function if exists snapshots.count_child(uuid, bigint, boolean);
create or replace function snapshots.count_children(p_run uuid, p_group bigint, p_ended integer, p_failed integer) returns void
language plpgsql as $$
declare
    counted record;
begin
    update snapshots.step
    set children_left = children_left - p_ended, children_failed = children_failed + p_failed
    where id = p_group and state = 'waiting'
    returning children_left, children_failed into counted;
    if not found then
        -- The group was cancelled under its children; the last of them ends the run.
        perform snapshots.settle(p_run);
    elsif counted.children_left = 0 then
        perform snapshots.end_group(p_run, p_group, counted.children_failed);
    end if;
end $$;

create or replace function snapshots.end_group(p_run uuid, p_group bigint, p_failed integer) returns void language plpgsql as $$
declare
    reason text;
begin
    if p_failed = 0 then
        update snapshots.step set state = 'succeeded', done_at = now() where id = p_group;
        perform snapshots.succeed(p_run, p_group);
        return;
    end if;
    update snapshots.step g
    set state = 'failed', done_at = now(),
        error = format('%s of %s `%s` steps failed; first: child %s: %s',
            g.children_failed, g.children_total, g.name, c.index, c.error)
    from (
        select index, error from snapshots.step where group_id = p_group and state = 'failed' order by index limit 1
    ) c
    where g.id = p_group and g.state = 'waiting'
    returning g.error into reason;
    insert into snapshots.event (run_id, step_id, level, kind, data)
    values (p_run, p_group, 'error', 'group.failed', jsonb_build_object('error', reason));
    perform snapshots.fail_run(p_run, p_group, reason);
end $$;

create or replace function snapshots.fail_run(p_run uuid, p_step bigint, p_error text) returns void language plpgsql as $$
begin
    update snapshots.run set error = coalesce(error, p_error) where id = p_run;
    with recursive later (id) as (
        select step_id from snapshots.step_dependency where after_id = p_step
        union
        select d.step_id from snapshots.step_dependency d join later on d.after_id = later.id
    )
    update snapshots.step set state = 'skipped', done_at = now()
    where id in (select id from later) and state = 'blocked';
    perform snapshots.settle(p_run);
end $$;

create or replace function snapshots.settle(p_run uuid) returns void language plpgsql as $$
declare
    ended text;
begin
    -- A statement of its own: of two last steps that end at the same time the second must see the first.
    perform 1 from snapshots.run where id = p_run for update;
    update snapshots.run r
    set state = case
            when r.cancel_requested_at is not null
                and exists (select 1 from snapshots.step where run_id = r.id and state = 'cancelled') then 'cancelled'
            when exists (select 1 from snapshots.step where run_id = r.id and state = 'failed') then 'failed'
            else 'succeeded'
        end,
        next_attempt_at = null,
        done_at = now()
    where r.id = p_run
      and r.state in ('queued', 'running', 'retrying', 'paused')
      and not exists (
          select 1 from snapshots.step where run_id = r.id and state in ('blocked', 'ready', 'running', 'waiting')
      )
    returning r.state into ended;
    if found then
        insert into snapshots.event (run_id, level, kind)
        values (p_run, case ended when 'failed' then 'error' else 'info' end, 'run.' || ended);
        perform pg_notify('snapshots_run', p_run::text);
    end if;
end $$;

-- Takes the run before its steps, the end of a step takes them the other way round: callers try again after a deadlock.
create or replace function snapshots.cancel(p_run uuid) returns void language plpgsql as $$
begin
    update snapshots.run set cancel_requested_at = coalesce(cancel_requested_at, now())
    where id = p_run and state in ('queued', 'running', 'retrying', 'paused');
    update snapshots.step set state = 'cancelled', done_at = now()
    where run_id = p_run and state in ('blocked', 'ready', 'waiting');
    perform snapshots.settle(p_run);
end $$;
comment on function snapshots.cancel(uuid) is
'Asks running steps to stop (their next renewal says so) and ends all others. Invariant: nothing of the run is claimed from
here on; the run has ended when its last running step has. Safe to repeat: sweep does.';

-- What is true of a step or a run now.

-- PL/pgSQL, as all that is called for every step: it keeps its plans.
create or replace function snapshots.is_paused(p_workflow text, p_queue text) returns boolean language plpgsql stable as $$
begin
    return exists (
        select 1 from snapshots.pause p
        where p.kind = 'workflow' and p.name = p_workflow or p.kind = 'queue' and p.name = p_queue
    );
end $$;

-- base · 2^(attempt − 1), at most cap, spread over 75 % to 125 %.
create or replace function snapshots.backoff_ms(p_base bigint, p_cap bigint, p_attempt integer) returns bigint
language sql volatile as $$
    select (least(p_cap, p_base * 2.0 ^ least(greatest(p_attempt - 1, 0), 31)) * (0.75 + random() / 2))::bigint
$$;

create or replace function snapshots.inputs(p_step bigint) returns jsonb language plpgsql stable as $$
begin
    return (
        select jsonb_object_agg(p.name, case
            when p.kind = 'group' then (
                select coalesce(jsonb_agg(c.output order by c.index), '[]') from snapshots.step c where c.group_id = p.id
            )
            else coalesce(p.output, 'null')
        end)
        from snapshots.step_dependency d
        join snapshots.step p on p.id = d.after_id
        where d.step_id = p_step
    );
end $$;
comment on function snapshots.inputs(bigint) is 'Outputs of a step''s predecessors by name; of a group all children''s, by index.';

create or replace function snapshots.mark_retrying(p_run uuid) returns void language sql as $$
    update snapshots.run r
    set state = 'retrying',
        next_attempt_at = (select min(run_at) from snapshots.step where run_id = r.id and state = 'ready')
    where (p_run is null or r.id = p_run)
      and r.state = 'running'
      and exists (select 1 from snapshots.step where run_id = r.id and state = 'ready')
      and not exists (
          select 1 from snapshots.step
          where run_id = r.id and (state = 'running' or state = 'ready' and run_at <= now())
      )
$$;

create or replace function snapshots.mark_paused() returns void language sql as $$
    with unfinished as (
        select u.id, exists (select 1 from snapshots.pause)
            and not exists (select 1 from snapshots.step s where s.run_id = u.id and s.state = 'running')
            and (
                exists (select 1 from snapshots.pause p where p.kind = 'workflow' and p.name = u.workflow)
                or exists (select 1 from snapshots.step s where s.run_id = u.id and s.state = 'ready')
                    and not exists (
                        select 1 from snapshots.step s
                        where s.run_id = u.id and s.state = 'ready'
                          and not exists (select 1 from snapshots.pause p where p.kind = 'queue' and p.name = s.queue)
                    )
            ) as held
        from snapshots.run u
        where u.state in ('queued', 'running', 'retrying', 'paused')
    )
    update snapshots.run r
    set state = case
            when u.held then 'paused'
            when r.started_at is null then 'queued'
            else 'running'
        end,
        next_attempt_at = null
    from unfinished u
    where r.id = u.id
      and r.state in ('queued', 'running', 'retrying', 'paused')
      and (r.state = 'paused') <> u.held
$$;

-- Doorbells.

-- The id has the form apalis asks for (a ULID: 26 letters of Crockford's base 32, hexadecimal ones here), grows with time.
create or replace function snapshots.ring(p_steps bigint[]) returns integer language plpgsql as $$
declare
    rung integer;
begin
    with bell as (
        select s.id as step, s.queue, s.priority, upper(
            '0' || lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
                || replace(right(gen_random_uuid()::text, 14), '-', '')
        ) as bell
        from snapshots.step s
        where s.id = any(p_steps)
        order by s.id
    ), pushed as (
        insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority)
        select bell, queue, convert_to(format('{"step":%s}', step), 'UTF8'), 'Pending', 0, 1, now(), priority from bell
    )
    update snapshots.step s set doorbell = b.bell, rang_at = now() from bell b where s.id = b.step;
    get diagnostics rung = row_count;
    return rung;
end $$;
comment on function snapshots.ring(bigint[]) is
'Rings for steps: if the caller commits, workers wake. Invariant: a doorbell carries a step''s id and nothing else; losing or
doubling one costs time, not work.';

create or replace function snapshots.rename_queues() returns void language plpgsql as $$
begin
    if not exists (select 1 from snapshots.queue_name) then
        return;
    end if;
    update snapshots.step s set queue = q.queue, doorbell = null, rang_at = null
    from snapshots.queue_name q
    where s.queue = q.former and s.state in ('blocked', 'ready', 'running', 'waiting');
    delete from apalis.jobs j using snapshots.queue_name q where j.job_type = q.former and j.status = 'Pending';
    update snapshots.pause p set name = q.queue
    from snapshots.queue_name q
    where p.kind = 'queue' and p.name = q.former
      and not exists (select 1 from snapshots.pause o where o.kind = 'queue' and o.name = q.queue);
end $$;
comment on function snapshots.rename_queues() is
'Moves what is unfinished, and pauses, from the former names of queues to those of now; older binaries may still write the
former. Their doorbells go: sweep rings for the steps under the new name.';

drop function if exists snapshots.unheard(bigint, integer);
create or replace function snapshots.unheard(p_lost_after_ms bigint, p_gone_after_ms bigint, p_limit integer)
returns setof bigint language sql as $$
    with full_limit as (
        select key from snapshots.limit_slot group by key having count(*) = count(holder)
    )
    select s.id
    from snapshots.step s
    join snapshots.run r on r.id = s.run_id
    where s.state = 'ready'
      and s.run_at <= now()
      and r.state in ('queued', 'running', 'retrying')
      and not array['global', 'workflow ' || r.workflow] && array(select key from full_limit)
      and not snapshots.is_paused(r.workflow, s.queue)
      and (
          s.doorbell is null
          or s.rang_at < now() - p_lost_after_ms * interval '1 millisecond'
             and not exists (
                 select 1 from apalis.jobs j where j.id = s.doorbell and j.status in ('Pending', 'Queued', 'Running')
             )
          or s.rang_at < now() - p_gone_after_ms * interval '1 millisecond'
             and s.doorbell in (
                 select j.id
                 from apalis.workers a
                 join apalis.jobs j on j.lock_by = a.id
                 where j.status in ('Queued', 'Running')
                   -- A pull loop is named after its worker: see Supervisor in pull.rs.
                   and not exists (
                       select 1 from snapshots.worker w
                       where starts_with(a.id, w.id || '/')
                         and w.seen_at > now() - p_gone_after_ms * interval '1 millisecond'
                   )
             )
      )
    order by s.run_at
    limit p_limit
    for update of s skip locked
$$;
comment on function snapshots.unheard(bigint, bigint, integer) is
'Locks ready steps nobody will hear of otherwise: never rung for (a retry that has come due), rung for long ago and the
doorbell is gone, or fetched by a worker that beats no more.';

create or replace function snapshots.pass_slot() returns void language plpgsql as $$
begin
    perform snapshots.ring(array(
        with full_limit as (
            select key from snapshots.limit_slot group by key having count(*) = count(holder)
        )
        select s.id
        from snapshots.step s
        join snapshots.run r on r.id = s.run_id
        where s.state = 'ready' and s.doorbell is null and s.run_at <= now()
          and r.state in ('queued', 'running', 'retrying')
          and not array['global', 'workflow ' || r.workflow] && array(select key from full_limit)
          and not snapshots.is_paused(r.workflow, s.queue)
        order by s.priority desc, s.run_at, s.id
        limit 1
        for update of s skip locked
    ));
end $$;
comment on function snapshots.pass_slot() is
'A slot of a limit is free: rings for the step that has waited for one longest among those of the highest priority.';
