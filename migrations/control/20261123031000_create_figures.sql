-- Why: what monitoring wants to know of the database is computed by one process for all of them, and shown by each. An older
-- binary neither computes nor reads it.
create table snapshots.figures (
    source text primary key,                   -- whose figures: 'engine', 'snapshots'
    holder text not null,                      -- the process that computes them (snapshots.worker) …
    held_until timestamptz not null,           -- … unless it has not come back by then
    at timestamptz,                            -- when they were computed
    series jsonb not null default '[]'         -- [{"name": "…", "labels": {"…": "…"}, "value": n}]
);
