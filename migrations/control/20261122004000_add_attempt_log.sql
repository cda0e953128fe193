-- Why: who looks at a failed attempt wants what it said and how far it was, also when its process is gone; and a trace is
-- found by its id. An older binary leaves these columns empty.
alter table snapshots.attempt
    add column progress jsonb,                 -- as in step, when the attempt ended
    add column log jsonb,                      -- its last lines, oldest first: [{"at", "level", "target", "text"}]
    add column trace_id text;                  -- of its OpenTelemetry trace

-- W3C trace context of whoever asked for the run; each attempt is a trace of its own, linked to it.
alter table snapshots.run add column traceparent text;
