-- The five statements that carry the engine; what they share is in consequences.sql. `engine::migrate` puts both files into
-- the database as they are; Rust only calls. In psql, `\df+ snapshots.*` shows each with its invariant.
--
-- Invariant of all: a write about a step takes effect only while its lease token is the latest and the step is running;
-- what it sets off (dependents, doorbells, the run's end) is in the same transaction. Each may be called again after an
-- unknown outcome: the second time it changes nothing and says so.
--
-- Binaries of several versions share a database during a deploy. So a body may change only such that the binaries before
-- and after can live with it; where arguments or results change, the new one is added beside the old (Postgres tells
-- functions of one name apart by their arguments), and the old one goes when no binary calls it any more. A change of either
-- file takes a greater `REVISION` in setup.rs, so that an older binary that starts later leaves it alone.

create or replace function snapshots.claim(
    p_step bigint, p_worker text, p_lease_ms bigint, p_workflows text[], p_versions integer[]
) returns table (
    id bigint, lease_token bigint, run_id uuid, name text, kind text, index integer, attempt integer,
    max_attempts integer, timeout_ms bigint, input jsonb, inputs jsonb, workflow text, version integer,
    unique_key text, params jsonb, created_at timestamptz, traceparent text
) language plpgsql as $$
#variable_conflict use_column
declare
    taken record;
begin
    with target as (
        select s.id, array(
            select l.key from snapshots.limit_slot l where l.key in ('global', 'workflow ' || r.workflow) and l.no = 0
        ) as keys
        from snapshots.step s
        join snapshots.run r on r.id = s.run_id
        where s.id = p_step and s.state = 'ready'
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
            lease_until = now() + p_lease_ms * interval '1 millisecond',
            worker = p_worker,
            progress = null,
            started_at = coalesce(s.started_at, now())
        from snapshots.run r, target t
        where s.id = p_step
          and t.id = s.id
          and r.id = s.run_id
          and s.state = 'ready'
          and s.run_at <= now()
          and s.attempt < s.max_attempts
          and r.state in ('queued', 'running', 'retrying')
          and r.cancel_requested_at is null
          and (r.workflow, r.version) in (select * from unnest(p_workflows, p_versions))
          and not snapshots.is_paused(r.workflow, s.queue)
          and not exists (select 1 from snapshots.worker w where w.id = p_worker and w.draining)
          and (cardinality(t.keys) = 0 or cardinality(t.keys) = (select count(*) from picked))
        returning s.*, r.workflow, r.version, r.unique_key, r.params, r.created_at, r.traceparent, r.state as run_state
    ), held as (
        update snapshots.limit_slot l set holder = c.id
        from claimed c, picked p
        where l.key = p.key and l.no = p.no
    )
    select * into taken from claimed;
    if not found then
        -- Perhaps it waits for a slot: whoever frees one rings for steps without a doorbell. Or for a worker that does not drain.
        update snapshots.step s set doorbell = null, rang_at = null
        from snapshots.run r
        where s.id = p_step and s.state = 'ready' and s.doorbell is not null and r.id = s.run_id
          and (
              exists (select 1 from snapshots.limit_slot l where l.key in ('global', 'workflow ' || r.workflow))
              or exists (select 1 from snapshots.worker w where w.id = p_worker and w.draining)
          );
        return;
    end if;
    -- Heard. Kept, doorbells would make each acknowledgement of apalis, which looks at all that a loop ever answered, slower.
    delete from apalis.jobs j
    where j.id = taken.doorbell and (j.status = 'Pending' or starts_with(j.lock_by, p_worker || '/'));
    insert into snapshots.attempt (step_id, lease_token, no, worker)
    values (taken.id, taken.lease_token, taken.attempts_before + taken.attempt, p_worker);
    if taken.run_state <> 'running' then
        update snapshots.run r
        set state = 'running', next_attempt_at = null, started_at = coalesce(r.started_at, now())
        where r.id = taken.run_id and r.state in ('queued', 'retrying');
        perform pg_notify('snapshots_run', taken.run_id::text);
    end if;
    return query select taken.id, taken.lease_token, taken.run_id, taken.name, taken.kind, taken.index, taken.attempt,
        taken.max_attempts, taken.timeout_ms, taken.input, snapshots.inputs(taken.id), taken.workflow, taken.version,
        taken.unique_key, taken.params, taken.created_at, taken.traceparent;
end $$;
comment on function snapshots.claim(bigint, text, bigint, text[], integer[]) is
'Takes a ready step whose time has come and its doorbell, and opens an attempt; no row: the doorbell was stale. Invariant: of any number of
claims of one ready step one succeeds; never claimed is a step of a workflow or version the claimant does not know, of a
paused, cancelled or finished run, out of attempts, beyond a limit, or by a draining worker. An expired lease is not for
the taking here: only sweep decides that a holder is gone.';

create or replace function snapshots.claim_many(
    p_queue text, p_most integer, p_worker text, p_lease_ms bigint, p_workflows text[], p_versions integer[]
) returns table (
    id bigint, lease_token bigint, run_id uuid, name text, kind text, index integer, attempt integer,
    max_attempts integer, timeout_ms bigint, input jsonb, inputs jsonb, workflow text, version integer,
    unique_key text, params jsonb, created_at timestamptz, traceparent text
) language plpgsql
-- Else it is planned as a join of all runs with all steps.
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
    picked bigint[];
    step bigint;
begin
    with full_limit as (
        select key from snapshots.limit_slot group by key having count(*) = count(holder)
    ), pick as (
        select s.id, s.run_id
        from snapshots.step s
        join snapshots.run r on r.id = s.run_id
        where s.state = 'ready'
          and s.queue = p_queue
          and s.run_at <= now()
          and r.state in ('queued', 'running', 'retrying')
          and (r.workflow, r.version) in (select * from unnest(p_workflows, p_versions))
          and not array['global', 'workflow ' || r.workflow] && array(select key from full_limit)
          and not exists (
              select 1 from snapshots.pause p
              where p.kind = 'workflow' and p.name = r.workflow or p.kind = 'queue' and p.name = p_queue
          )
        order by s.priority desc, s.run_at, s.id
        limit p_most
        for update of s skip locked
    )
    -- Claims change runs: in one order everywhere, lest two claims wait for each other.
    select array_agg(pick.id order by pick.run_id, pick.id) into picked from pick;
    foreach step in array coalesce(picked, '{}') loop
        return query select * from snapshots.claim(step, p_worker, p_lease_ms, p_workflows, p_versions);
        -- Where the last slot of a limit is taken, the others would be refused one after the other.
        exit when not found and exists (select 1 from snapshots.limit_slot);
    end loop;
end $$;
comment on function snapshots.claim_many(text, integer, text, bigint, text[], integer[]) is
'Claims up to so many ready steps of a queue, those of the highest priority first; no row: nothing is there to claim. Invariant: each is claimed by claim, so all that holds of one holds of many; steps that others
are claiming are passed over, never waited for.';

create or replace function snapshots.renew(
    p_step bigint, p_token bigint, p_lease_ms bigint, p_progress jsonb, p_log jsonb
) returns table (cancel boolean, pause boolean, drain boolean) language plpgsql as $$
begin
    return query
    update snapshots.step s
    set lease_until = now() + p_lease_ms * interval '1 millisecond', progress = coalesce(p_progress, s.progress)
    from snapshots.run r
    where s.id = p_step and s.lease_token = p_token and s.state = 'running' and r.id = s.run_id
    returning r.cancel_requested_at is not null, snapshots.is_paused(r.workflow, s.queue),
        exists (select 1 from snapshots.worker w where w.id = s.worker and w.draining);
    if found and p_log is not null then
        update snapshots.attempt set log = p_log where step_id = p_step and lease_token = p_token;
    end if;
end $$;
comment on function snapshots.renew(bigint, bigint, bigint, jsonb, jsonb) is
'Extends a lease, stores progress and the last log lines, and brings back what is wanted of the holder: to end (cancel),
or to give the step back where it can (pause, drain). No row: the lease is lost. Invariant: only the latest holder renews.';

create or replace function snapshots.complete(
    p_step bigint, p_token bigint, p_output jsonb, p_children jsonb[], p_progress jsonb, p_log jsonb
) returns boolean language plpgsql as $$
declare
    done snapshots.step;
    freed boolean;
begin
    update snapshots.step s
    set state = case when p_children is null then 'succeeded' else 'waiting' end,
        output = p_output,
        progress = coalesce(p_progress, s.progress),
        error = null,
        lease_until = null,
        done_at = case when p_children is null then now() end,
        children_total = cardinality(p_children),
        children_left = cardinality(p_children),
        children_failed = case when p_children is not null then 0 end
    where s.id = p_step and s.lease_token = p_token and s.state = 'running'
    returning s.* into done;
    if not found then
        return false;
    end if;
    update snapshots.attempt a
    set done_at = now(), outcome = 'succeeded', progress = done.progress, log = coalesce(p_log, a.log)
    where a.step_id = p_step and a.lease_token = p_token;
    update snapshots.limit_slot set holder = null where holder = p_step;
    freed := found;
    if p_children is not null then
        perform snapshots.plan(p_step, p_children);
    end if;
    if cardinality(p_children) = 0 then
        perform snapshots.end_group(done.run_id, p_step, 0);
    elsif p_children is null and done.group_id is not null then
        perform snapshots.count_children(done.run_id, done.group_id, 1, 0);
    elsif p_children is null then
        perform snapshots.succeed(done.run_id, p_step);
    end if;
    if freed then
        perform snapshots.pass_slot();
    end if;
    return true;
end $$;
comment on function snapshots.complete(bigint, bigint, jsonb, jsonb[], jsonb, jsonb) is
'Stores a step''s output, or the children it plans, and sets off what comes after it: dependents whose last predecessor
this was become ready and are rung for, a group whose last child this was ends, a run without unfinished steps ends.
False: fenced. Invariant: each of these happens exactly once, whoever completes how often; a child is unique by
(run, name, index).';

create or replace function snapshots.complete_many(
    p_steps bigint[], p_tokens bigint[], p_outputs jsonb[], p_progress jsonb[], p_logs jsonb[]
) returns boolean[] language plpgsql as $$
declare
    done boolean[] := array_fill(false, array[cardinality(p_steps)]);
    ended bigint[] := '{}';
    freed bigint := 0;
    each record;
begin
    for each in
        with given as (
            select * from unnest(p_steps, p_tokens, p_outputs, p_progress, p_logs)
                with ordinality as g (step, token, output, progress, log, no)
        ), stored as (
            update snapshots.step s
            set state = 'succeeded', output = g.output, progress = coalesce(g.progress, s.progress), error = null,
                lease_until = null, done_at = now()
            from given g
            where s.id = g.step and s.lease_token = g.token and s.state = 'running'
            returning s.id, s.run_id, s.group_id, s.lease_token, s.progress, g.log, g.no
        ), attempted as (
            update snapshots.attempt a
            set done_at = now(), outcome = 'succeeded', progress = s.progress, log = coalesce(s.log, a.log)
            from stored s
            where a.step_id = s.id and a.lease_token = s.lease_token
        ), given_back as (
            update snapshots.limit_slot l set holder = null from stored s where l.holder = s.id returning l.key
        )
        select s.id, s.run_id, s.group_id, s.no, (select count(*) from given_back) as freed
        from stored s
        order by s.run_id, s.id
    loop
        done[each.no] := true;
        ended := ended || each.id;
        freed := each.freed;
        if each.group_id is null then
            perform snapshots.succeed(each.run_id, each.id);
        end if;
    end loop;
    for each in
        select s.run_id, s.group_id, count(*)::integer as children
        from snapshots.step s
        where s.id = any(ended) and s.group_id is not null
        group by s.run_id, s.group_id
        order by s.run_id, s.group_id
    loop
        perform snapshots.count_children(each.run_id, each.group_id, each.children, 0);
    end loop;
    for _ in 1..freed loop
        perform snapshots.pass_slot();
    end loop;
    return done;
end $$;
comment on function snapshots.complete_many(bigint[], bigint[], jsonb[], jsonb[], jsonb[]) is
'Completes many steps that plan no children in one transaction; of each it says whether that took effect (false: fenced).
Invariant: what complete does for one happens for each; one that is fenced stops no other; an error undoes all, and each may
then be completed alone.';

create or replace function snapshots.fail(
    p_step bigint, p_token bigint, p_outcome text, p_after_ms bigint, p_error text, p_progress jsonb, p_log jsonb
) returns table (state text, next_attempt_at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare
    ended record;
    freed boolean;
begin
    -- outcome: 'retry' (may pass), 'failed' (no retry mends it), 'yielded' (given back, costs no attempt), 'lost' (by sweep).
    update snapshots.step s
    set state = case
            when r.cancel_requested_at is not null then 'cancelled'
            when p_outcome = 'yielded' or p_outcome <> 'failed' and s.attempt < s.max_attempts then 'ready'
            else 'failed'
        end,
        attempt = s.attempt - case when p_outcome = 'yielded' then 1 else 0 end,
        run_at = now() + interval '1 millisecond' * coalesce(
            p_after_ms,
            snapshots.backoff_ms(s.backoff_base_ms, s.backoff_cap_ms, case p_outcome when 'lost' then s.attempt - 1 else s.attempt end)
        ),
        progress = coalesce(p_progress, s.progress),
        error = coalesce(p_error, s.error),
        lease_until = null,
        doorbell = null,
        rang_at = null
    from snapshots.run r
    where s.id = p_step and s.lease_token = p_token and s.state = 'running' and r.id = s.run_id
    returning s.*, case
            when s.state = 'cancelled' then 'cancelled'
            when s.state = 'failed' and p_outcome = 'retry' then 'failed'
            else p_outcome
        end as outcome into ended;
    if not found then
        return;
    end if;
    if ended.state <> 'ready' then
        update snapshots.step s set done_at = now() where s.id = p_step;
    end if;
    update snapshots.attempt a
    set done_at = now(), outcome = ended.outcome, error = p_error, progress = ended.progress, log = coalesce(p_log, a.log)
    where a.step_id = p_step and a.lease_token = p_token;
    update snapshots.limit_slot set holder = null where holder = p_step;
    freed := found;
    insert into snapshots.event (run_id, step_id, level, kind, data)
    values (
        ended.run_id, p_step,
        case when ended.state = 'failed' then 'error' when ended.outcome in ('yielded', 'cancelled') then 'info' else 'warn' end,
        'step.' || ended.outcome,
        jsonb_build_object(
            'step', ended.name, 'attempt', ended.attempt, 'maxAttempts', ended.max_attempts, 'error', p_error,
            'nextAttemptAt', case when ended.state = 'ready' then ended.run_at end
        )
    );
    if ended.state = 'ready' and ended.run_at <= now() then
        perform snapshots.ring(array[p_step]);
    elsif ended.state = 'ready' then
        perform snapshots.mark_retrying(ended.run_id);
    elsif ended.state = 'failed' and ended.group_id is not null then
        perform snapshots.count_children(ended.run_id, ended.group_id, 1, 1);
    elsif ended.state = 'failed' then
        perform snapshots.fail_run(ended.run_id, p_step, format('step `%s` failed: %s', ended.name, p_error));
    else
        perform snapshots.settle(ended.run_id);
    end if;
    if freed then
        perform snapshots.pass_slot();
    end if;
    perform pg_notify('snapshots_run', ended.run_id::text);
    return query select ended.state, case when ended.state = 'ready' then ended.run_at end;
end $$;
comment on function snapshots.fail(bigint, bigint, text, bigint, text, jsonb, jsonb) is
'Ends an attempt without success: the step is ready again after the given wait or its own backoff, or failed for good, or,
its run being cancelled, cancelled. No row: fenced. Invariant: the time of the next attempt is stored, not slept; a crash
costs an attempt, a yield none; a step that failed for good fails its run visibly, what comes after it is skipped, what
does not depend on it goes on.';

create or replace procedure snapshots.sweep(
    p_expire boolean, p_lost_after_ms bigint, p_gone_after_ms bigint, inout expired integer, inout rung integer, inout next_ms bigint
) language plpgsql as $$
declare
    lease record;
    cancelled uuid;
    passed_over bigint[] := '{}';
begin
    expired := 0;
    while p_expire and expired + cardinality(passed_over) < 500 loop
        select s.id, s.lease_token, s.attempt, s.max_attempts, s.worker into lease
        from snapshots.step s
        where s.state = 'running' and s.lease_until < now() and s.id <> all (passed_over)
        order by s.lease_until
        limit 1
        for update skip locked;
        exit when not found;
        begin
            perform snapshots.fail(
                lease.id, lease.lease_token, 'lost', case when lease.attempt = 1 then 0 end,
                format('worker %s stopped renewing its lease in attempt %s of %s', lease.worker, lease.attempt, lease.max_attempts),
                null, null
            );
            expired := expired + 1;
        exception when others then
            -- One that cannot be ended keeps none of the others waiting; the next sweep tries it again.
            raise warning 'the lost attempt of step % cannot be ended: % (%)', lease.id, sqlerrm, sqlstate;
            passed_over := passed_over || lease.id;
        end;
        -- Outside: no commit is allowed in a block that catches.
        commit;
    end loop;
    perform snapshots.rename_queues();
    commit;
    rung := snapshots.ring(array(select snapshots.unheard(p_lost_after_ms, p_gone_after_ms, 500)));
    commit;
    perform snapshots.mark_retrying(null);
    commit;
    perform snapshots.mark_paused();
    commit;
    -- Steps that became ready in the moment of a cancellation.
    foreach cancelled in array array(
        select r.id from snapshots.run r
        where r.cancel_requested_at is not null and r.state in ('queued', 'running', 'retrying', 'paused')
    ) loop
        perform snapshots.cancel(cancelled);
        commit;
    end loop;
    select extract(epoch from min(s.lease_until) - clock_timestamp()) * 1000 into next_ms
    from snapshots.step s
    where s.state = 'running';
end $$;
comment on procedure snapshots.sweep(boolean, bigint, bigint, integer, integer, bigint) is
'Mends what no message will, on any node, without a leader: ends attempts whose lease expired, as lost (ready again at once
the first time, with backoff after that, failed at the cap); rings for ready steps nobody would hear of; makes the word for
a run''s state true; says in how many ms the next lease expires unless it is renewed. Commits after each, so nothing is locked for long. Invariant: an attempt that cannot be ended stops no other; a step that kills its process stops; a
lease renewed meanwhile is left alone; a step that waits behind others in a long queue is not rung for again.';

-- As binaries before 2026-11-23 call it.
create or replace procedure snapshots.sweep(p_expire boolean, p_lost_after_ms bigint, inout expired integer, inout rung integer)
language plpgsql as $$
declare
    next_ms bigint;
begin
    call snapshots.sweep(p_expire, p_lost_after_ms, 3000, expired, rung, next_ms);
end $$;
